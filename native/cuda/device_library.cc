#include "native/cuda/device_library.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace engine::cuda {
namespace {

#ifdef _WIN32

DeviceApiFunction* FindFunction(const std::string& path, std::string* problem) {
  const HMODULE library = LoadLibraryA(path.c_str());
  if (library == nullptr) {
    *problem = "it cannot be loaded (error " + std::to_string(GetLastError()) + ")";
    return nullptr;
  }
  return reinterpret_cast<DeviceApiFunction*>(reinterpret_cast<void*>(GetProcAddress(library, kDeviceApiName)));
}

#else

DeviceApiFunction* FindFunction(const std::string& path, std::string* problem) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* reason = dlerror();
    *problem = reason == nullptr ? "it cannot be loaded" : reason;
    return nullptr;
  }
  auto* function = reinterpret_cast<DeviceApiFunction*>(dlsym(library, kDeviceApiName));
  dlclose(library);
  return function;
}

#endif

Failure Unavailable(std::string reason) {
  return {"BACKEND_UNAVAILABLE", {{"backend", std::string("native-cuda")}, {"reason", std::move(reason)}}};
}

// The library stays loaded until the process ends: what a driver has started cannot be taken away.
Failure OpenLibrary(const std::string& path, const DeviceApi** api) {
  std::string problem;
  DeviceApiFunction* function = FindFunction(path, &problem);
  *api = function == nullptr ? nullptr : function();
  if (*api != nullptr && (*api)->version == kDeviceApiVersion) return {};
  if (problem.empty()) problem = "it was built for another version of the addon";
  return Unavailable("the library with its kernels cannot be used: " + path + ": " + problem);
}

Failure CountDevices(const DeviceApi& api, int32_t* count) {
  if (const int error = api.count(count); error != 0) return Unavailable(api.explain(error));
  return *count == 0 ? Unavailable("there is no GPU that CUDA can use, or no driver for it") : Failure{};
}

}  // namespace

Failure Device::Check(int error) const {
  if (error == 0) return {};
  return {"DEVICE_FAILED", {{"device", std::string(info.name)}, {"problem", std::string(api->explain(error))}}};
}

Failure ListDevices(const std::string& library, std::vector<DeviceInfo>* devices) {
  const DeviceApi* api = nullptr;
  int32_t count = 0;
  if (Failure failure = OpenLibrary(library, &api)) return failure;
  if (Failure failure = CountDevices(*api, &count)) return failure;
  devices->resize(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; i++) {
    if (const int error = api->describe(i, &(*devices)[static_cast<size_t>(i)]); error != 0) {
      return Unavailable(api->explain(error));
    }
  }
  return {};
}

Failure OpenDevice(const std::string& library, int32_t index, Device* device) {
  int32_t count = 0;
  if (Failure failure = OpenLibrary(library, &device->api)) return failure;
  if (Failure failure = CountDevices(*device->api, &count)) return failure;
  if (index < 0 || index >= count) {
    return Unavailable("there is no GPU " + std::to_string(index) + "; there are " + std::to_string(count));
  }
  int error = device->api->describe(index, &device->info);
  if (error == 0) error = device->api->use(index);
  return error == 0 ? Failure{} : Unavailable(device->api->explain(error));
}

}  // namespace engine::cuda
