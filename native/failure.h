// Why a call failed, in the terms of the error table in src/base/errors.ts; TypeScript makes the EngineError.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace engine {

struct Failure {
  using Parameter = std::pair<const char*, std::variant<std::string, double>>;

  const char* code = nullptr;  // null: no failure
  std::vector<Parameter> parameters;

  explicit operator bool() const { return code != nullptr; }
};

// A fault of ours: the caller checked its arguments, and yet.
inline Failure Internal(std::string problem) { return {"INTERNAL", {{"problem", std::move(problem)}}}; }

inline Failure Disposed() { return {"DISPOSED", {{"what", std::string("the session")}}}; }

inline Failure OutOfMemory(uint64_t bytes, std::string what) {
  return {"OUT_OF_MEMORY", {{"bytes", static_cast<double>(bytes)}, {"what", std::move(what)}}};
}

inline Failure FileNotFound(const std::string& path) {
  return {"FILE_NOT_FOUND", {{"path", path}, {"what", std::string("model file")}}};
}

inline Failure FileUnreadable(const std::string& path, std::string reason) {
  return {"FILE_UNREADABLE", {{"path", path}, {"reason", std::move(reason)}}};
}

// The file is not the one whose header was read.
inline Failure FileChanged(const std::string& path) { return {"FILE_CHANGED", {{"path", path}}}; }

}  // namespace engine
