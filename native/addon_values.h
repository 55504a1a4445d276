// Values on their way between JavaScript and native code; for addon.cc.
#pragma once

#include <napi.h>

#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "native/failure.h"
#include "native/mapped_file.h"

namespace engine {

inline Napi::Value ToJs(Napi::Env env, const Failure& failure) {
  if (!failure) return env.Undefined();
  Napi::Object parameters = Napi::Object::New(env);
  for (const auto& [name, value] : failure.parameters) {
    if (const auto* text = std::get_if<std::string>(&value)) {
      parameters.Set(name, *text);
    } else {
      parameters.Set(name, std::get<double>(value));
    }
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("code", failure.code);
  object.Set("parameters", parameters);
  return object;
}

template <class T>
inline constexpr napi_typedarray_type kArrayType = std::is_same_v<T, float>     ? napi_float32_array
                                                   : std::is_same_v<T, double>  ? napi_float64_array
                                                   : std::is_same_v<T, uint8_t> ? napi_uint8_array
                                                                                : napi_int32_array;

// Reads typed arrays; `ok` turns false if one is of another type. Undefined is an empty array.
class Arrays {
 public:
  explicit Arrays(Napi::Env env) : env_(env) {}

  template <class T>
  std::span<T> Get(const Napi::Value& value) {
    napi_typedarray_type type = kArrayType<T>;
    size_t length = 0;
    void* data = nullptr;
    if (value.IsUndefined()) return {};
    if (napi_get_typedarray_info(env_, value, &type, &length, &data, nullptr, nullptr) != napi_ok ||
        type != kArrayType<T>) {
      ok_ = false;
      return {};
    }
    return {static_cast<T*>(data), length};
  }

  // Copies; To has the size of one or several words.
  template <class T, class To>
  void Copy(const Napi::Value& value, std::vector<To>* to) {
    const std::span<T> from = Get<T>(value);
    if (from.size_bytes() % sizeof(To) != 0) ok_ = false;
    to->resize(from.size_bytes() / sizeof(To));
    if (!to->empty()) std::memcpy(to->data(), from.data(), to->size() * sizeof(To));
  }

  bool ok() const { return ok_; }

 private:
  Napi::Env env_;
  bool ok_ = true;
};

inline constexpr const char* kWrongArrays = "arrays of a wrong type or length were given to native code";

inline FileStamp ToFileStamp(const Napi::Object& file) {
  return {.path = file.Get("path").ToString(),
          .size = static_cast<uint64_t>(file.Get("size").ToNumber().Int64Value()),
          .mtime_ms = file.Get("mtimeMs").ToNumber().DoubleValue()};
}

}  // namespace engine
