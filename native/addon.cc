// The glue between Node and sessions, and with addon_values.h the only file that includes Node's headers. It copies
// inputs, queues jobs and settles promises; every promise resolves, with a result, or with { code, parameters } of an
// error for TypeScript to throw. All state belongs to a session's object, so any number of environments (worker
// threads) can use the addon.
#include <napi.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <variant>

#include "native/addon_values.h"
#include "native/cuda/copy_rate.h"
#include "native/cuda/cuda_executor.h"
#include "native/cuda/device_library.h"
#include "native/gptq.h"
#include "native/measure.h"
#include "native/quantize.h"
#include "native/session.h"

namespace engine {
namespace {

// A job and the promise that waits for it.
struct Call final : Job {
  Call(Kind kind, Napi::Env env) : Job(kind), deferred(Napi::Promise::Deferred::New(env)) {}

  Napi::Promise::Deferred deferred;
  napi_ref results = nullptr;  // keeps the arrays alive that a step writes to
};

// Arguments `first` … `first` + 6: sampling, history offsets and ids, bias offsets, ids and values, mask.
void CopySampling(const Napi::CallbackInfo& info, size_t first, Arrays* arrays, SamplingInputs* to) {
  arrays->Copy<int32_t>(info[first], &to->records);
  arrays->Copy<int32_t>(info[first + 1], &to->history.offsets);
  arrays->Copy<int32_t>(info[first + 2], &to->history.ids);
  arrays->Copy<int32_t>(info[first + 3], &to->bias.offsets);
  arrays->Copy<int32_t>(info[first + 4], &to->bias.ids);
  arrays->Copy<float>(info[first + 5], &to->bias.values);
  arrays->Copy<int32_t>(info[first + 6], &to->mask);
}

// The arrays of a StepResult that JavaScript made; false if their lengths are not what these records need, that many
// times.
bool GetOutputs(const Napi::Object& results, const SamplingInputs& inputs, int32_t num_steps, Arrays* arrays,
                SamplingOutputs* out) {
  const std::span<int32_t> tokens = arrays->Get<int32_t>(results.Get("tokens"));
  const std::span<float> logprobs = arrays->Get<float>(results.Get("logprobs"));
  const std::span<int32_t> top_ids = arrays->Get<int32_t>(results.Get("topIds"));
  const std::span<float> top_logprobs = arrays->Get<float>(results.Get("topLogprobs"));
  int32_t num_top = 0;
  for (const SamplingRecord& record : inputs.records) {
    if ((record.flags & kSamplingFlagLogprobs) != 0) num_top = std::max(num_top, record.num_top);
  }
  *out = {tokens.data(), logprobs.data(), top_ids.data(), top_logprobs.data(), num_top};
  const size_t rows = inputs.records.size() * static_cast<size_t>(num_steps);
  return tokens.size() == rows && logprobs.size() == rows && top_ids.size() == rows * static_cast<size_t>(num_top) &&
         top_logprobs.size() == top_ids.size();
}

// An array [rows of the batch, width] for results, or null where none was given; false if it has another length.
bool GetRows(const Napi::Value& value, const Batch& batch, int32_t width, Arrays* arrays, float** out) {
  const std::span<float> values = arrays->Get<float>(value);
  *out = values.empty() ? nullptr : values.data();
  return values.empty() || values.size() == batch.sampling.records.size() * static_cast<size_t>(width);
}

CudaRequest ToCudaRequest(const Napi::Object& cuda) {
  return {.library = cuda.Get("library").ToString(),
          .device = cuda.Get("device").ToNumber(),
          .parts = cuda.Get("parts").ToNumber(),
          .graphs = cuda.Get("graphs").ToBoolean(),
          .fused = cuda.Get("fused").ToBoolean(),
          .overlaps = cuda.Get("overlaps").ToBoolean(),
          .synthetic = false};
}

class SessionObject : public Napi::ObjectWrap<SessionObject> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(
        env, "Session",
        {InstanceMethod<&SessionObject::Load>("load"), InstanceMethod<&SessionObject::Step>("step"),
         InstanceMethod<&SessionObject::Sample>("sample"), InstanceMethod<&SessionObject::Read>("read"),
         InstanceMethod<&SessionObject::CopyBlocks>("copyBlocks"),
         InstanceMethod<&SessionObject::SaveBlocks>("saveBlocks"),
         InstanceMethod<&SessionObject::LoadBlocks>("loadBlocks"), InstanceMethod<&SessionObject::Dispose>("dispose")});
  }

  explicit SessionObject(const Napi::CallbackInfo& info)
      : ObjectWrap(info),
        completions_(Completions::New(info.Env(), "engine session", 0, 1, this)),
        session_(std::make_unique<Session>(OnDone, this)) {
    completions_.Unref(info.Env());  // an idle session does not keep the process alive
    // Hooks run last to first: the executor has stopped when the environment takes the thread-safe function down.
    napi_add_env_cleanup_hook(info.Env(), OnEnvironmentEnd, this);
  }

  // Collected without dispose(): nothing is pending, for pending calls keep the object alive.
  ~SessionObject() override {
    session_->Stop();
    if (attached_) Detach(Env());
  }

 private:
  static void OnDone(void* object, std::unique_ptr<Job> job) {
    auto* self = static_cast<SessionObject*>(object);
    Job* raw = job.release();
    if (self->completions_.NonBlockingCall(raw) != napi_ok) delete raw;  // the environment is closing
  }

  static void OnCompletion(Napi::Env env, Napi::Function, SessionObject* self, Job* job) {
    std::unique_ptr<Call> call(static_cast<Call*>(job));
    if (env != nullptr) self->Complete(env, std::move(call));
  }

  static void OnEnvironmentEnd(void* object) {
    auto* self = static_cast<SessionObject*>(object);
    self->attached_ = false;
    self->session_->Stop();
  }

  using Completions = Napi::TypedThreadSafeFunction<SessionObject, Job, OnCompletion>;

  // load({ words, names, files: { path, size, mtimeMs }[], isa, threads, oversubscribed, adaptive, chunkTime,
  //        cuda?: { library, device, parts, graphs, fused, overlaps } })
  Napi::Value Load(const Napi::CallbackInfo& info) {
    auto call = std::make_unique<Call>(Job::Kind::kLoad, info.Env());
    const auto request = info[0].As<Napi::Object>();
    LoadRequest& load = call->load;
    Arrays arrays(info.Env());
    arrays.Copy<int32_t>(request.Get("words"), &load.words);
    const auto names = request.Get("names").As<Napi::Array>();
    for (uint32_t i = 0; i < names.Length(); i++) load.names.push_back(names.Get(i).ToString());
    const auto files = request.Get("files").As<Napi::Array>();
    for (uint32_t i = 0; i < files.Length(); i++) {
      load.files.push_back(ToFileStamp(files.Get(i).As<Napi::Object>()));
    }
    load.kernels = kernels::select(request.Get("isa").ToString().Utf8Value().c_str());
    load.num_threads = request.Get("threads").ToNumber().Int32Value();
    load.oversubscribed = request.Get("oversubscribed").ToBoolean();
    load.adaptive = request.Get("adaptive").ToBoolean();
    load.chunk_time = request.Get("chunkTime").ToNumber();
    if (!request.Get("cuda").IsUndefined()) load.cuda = ToCudaRequest(request.Get("cuda").As<Napi::Object>());
    if (started_ || disposed_ || !arrays.ok() || load.kernels == nullptr || load.num_threads < 1) {
      return Settle(*call, Internal("a session was loaded with wrong arguments"));
    }
    if (Failure failure = session_->Start()) return Settle(*call, failure);
    started_ = true;
    return Submit(std::move(call));
  }

  // step(tokenIds, positions, slotMapping, queryStart, contextLens, blockTables, …sampling, results, numSteps)
  Napi::Value Step(const Napi::CallbackInfo& info) {
    auto call = spare_ != nullptr ? std::move(spare_) : std::make_unique<Call>(Job::Kind::kStep, info.Env());
    call->deferred = Napi::Promise::Deferred::New(info.Env());
    if (disposed_ || !loaded_) return Settle(*call, Disposed());
    try {
      Batch& batch = call->batch;
      Arrays arrays(info.Env());
      arrays.Copy<int32_t>(info[0], &batch.token_ids);
      arrays.Copy<int32_t>(info[1], &batch.positions);
      arrays.Copy<int32_t>(info[2], &batch.slot_mapping);
      arrays.Copy<int32_t>(info[3], &batch.query_start);
      arrays.Copy<int32_t>(info[4], &batch.context_lens);
      arrays.Copy<int32_t>(info[5], &batch.block_tables);
      CopySampling(info, 6, &arrays, &batch.sampling);
      const auto results = info[13].As<Napi::Object>();
      batch.num_steps = info[14].IsNumber() ? info[14].As<Napi::Number>().Int32Value() : 0;
      const int32_t num_steps = std::clamp(batch.num_steps, 1, kMaxSteps);  // others are refused when it is checked
      const bool fits = GetOutputs(results, batch.sampling, num_steps, &arrays, &call->outputs.sampling);
      const Plan& plan = session_->plan();
      const bool rows_fit = GetRows(results.Get("logits"), batch, plan.vocab_size(), &arrays, &call->outputs.logits) &&
                            GetRows(results.Get("hidden"), batch, plan.hidden_size(), &arrays, &call->outputs.hidden);
      if (!fits || !arrays.ok() || !rows_fit) return Settle(*call, Internal(kWrongArrays));
      napi_create_reference(info.Env(), results, 1, &call->results);
    } catch (const std::bad_alloc&) {
      return Settle(*call, OutOfMemory(0, "the copy of a batch"));
    }
    return Submit(std::move(call));
  }

  // sample(logits, positions, …sampling, results), at once
  Napi::Value Sample(const Napi::CallbackInfo& info) {
    if (disposed_ || !loaded_) return ToJs(info.Env(), Disposed());
    try {
      SamplingInputs inputs;
      SamplingOutputs outputs;
      Arrays arrays(info.Env());
      const std::span<const float> logits = arrays.Get<float>(info[0]);
      const std::span<const int32_t> positions = arrays.Get<int32_t>(info[1]);
      CopySampling(info, 2, &arrays, &inputs);
      const bool fits = GetOutputs(info[9].As<Napi::Object>(), inputs, 1, &arrays, &outputs);
      if (!fits || !arrays.ok()) return ToJs(info.Env(), Internal(kWrongArrays));
      return ToJs(info.Env(), session_->Sample(inputs, logits, positions, outputs));
    } catch (const std::bad_alloc&) {
      return ToJs(info.Env(), OutOfMemory(0, "the copy of sampling inputs"));
    }
  }

  // read(buffer id): a Float32Array
  Napi::Value Read(const Napi::CallbackInfo& info) {
    auto call = std::make_unique<Call>(Job::Kind::kRead, info.Env());
    if (disposed_ || !loaded_) return Settle(*call, Disposed());
    call->buffer = info[0].ToNumber().Int32Value();
    return Submit(std::move(call));
  }

  // copyBlocks(pairs of block ids)
  Napi::Value CopyBlocks(const Napi::CallbackInfo& info) {
    auto call = std::make_unique<Call>(Job::Kind::kCopyBlocks, info.Env());
    return SubmitBlocks(std::move(call), info[0], info.Env().Undefined());
  }

  // saveBlocks(path, block ids, label)
  Napi::Value SaveBlocks(const Napi::CallbackInfo& info) {
    auto call = std::make_unique<Call>(Job::Kind::kSaveBlocks, info.Env());
    call->path = info[0].ToString();
    return SubmitBlocks(std::move(call), info[1], info[2]);
  }

  // loadBlocks(path, block ids, label)
  Napi::Value LoadBlocks(const Napi::CallbackInfo& info) {
    auto call = std::make_unique<Call>(Job::Kind::kLoadBlocks, info.Env());
    call->path = info[0].ToString();
    return SubmitBlocks(std::move(call), info[1], info[2]);
  }

  Napi::Value SubmitBlocks(std::unique_ptr<Call> call, const Napi::Value& blocks, const Napi::Value& label) {
    if (disposed_ || !loaded_) return Settle(*call, Disposed());
    try {
      Arrays arrays(Env());
      arrays.Copy<int32_t>(blocks, &call->blocks);
      arrays.Copy<uint8_t>(label, &call->label);
      if (!arrays.ok()) return Settle(*call, Internal(kWrongArrays));
    } catch (const std::bad_alloc&) {
      return Settle(*call, OutOfMemory(0, "the copy of a label"));
    }
    return Submit(std::move(call));
  }

  // dispose(): stops a running step before its next stage; other calls that have not finished fail.
  Napi::Value Dispose(const Napi::CallbackInfo& info) {
    auto call = std::make_unique<Call>(Job::Kind::kDispose, info.Env());
    const bool first = !disposed_;
    disposed_ = true;
    if (first && started_) {
      session_->Cancel();
      return Submit(std::move(call));
    }
    if (first) Detach(info.Env());
    return Settle(*call, {});
  }

  Napi::Value Settle(const Call& call, const Failure& failure) {
    call.deferred.Resolve(ToJs(Env(), failure));
    return call.deferred.Promise();
  }

  Napi::Value Submit(std::unique_ptr<Call> call) {
    const Napi::Promise promise = call->deferred.Promise();
    if (pending_++ == 0) {
      Ref();
      completions_.Ref(Env());
    }
    session_->Submit(std::move(call));
    return promise;
  }

  void Complete(Napi::Env env, std::unique_ptr<Call> call) {
    if (call->results != nullptr) napi_delete_reference(env, std::exchange(call->results, nullptr));
    Napi::Value value = ToJs(env, call->failure);
    if (call->kind == Job::Kind::kRead && !call->failure) {
      auto array = Napi::Float32Array::New(env, call->rows.size());
      std::copy(call->rows.begin(), call->rows.end(), array.Data());
      value = array;
    }
    if (call->kind == Job::Kind::kLoad && !call->failure) {
      loaded_ = true;
      accounted_ = static_cast<int64_t>(session_->bytes());
      Napi::MemoryManagement::AdjustExternalMemory(env, accounted_);
    }
    if (--pending_ == 0) {
      completions_.Unref(env);
      Unref();
    }
    if (call->kind == Job::Kind::kDispose) {
      session_->Stop();
      Detach(env);
    }
    call->deferred.Resolve(value);
    if (call->kind == Job::Kind::kStep) spare_ = std::move(call);  // its arrays have the sizes the next step needs
  }

  // Ends what ties the object to the environment; the executor has stopped.
  void Detach(Napi::Env env) {
    attached_ = false;
    napi_remove_env_cleanup_hook(env, OnEnvironmentEnd, this);
    completions_.Release();
    Napi::MemoryManagement::AdjustExternalMemory(env, -std::exchange(accounted_, 0));
  }

  Completions completions_;
  const std::unique_ptr<Session> session_;
  std::unique_ptr<Call> spare_;  // of an earlier step
  int32_t pending_ = 0;          // calls whose promises are not settled
  int64_t accounted_ = 0;        // bytes V8 knows of
  bool attached_ = true;
  bool started_ = false;
  bool loaded_ = false;
  bool disposed_ = false;
};

// Work without a session, on a thread of its own, whose results go to arrays that JavaScript made.
class Task {
 public:
  using Work = std::function<Failure(const std::atomic<bool>& cancelled)>;

  // { done: a promise of undefined or of a failure, cancel() }. `arrays` are kept alive until then.
  static Napi::Value Start(Napi::Env env, const Napi::Object& arrays, Work work) {
    auto* task = new Task(env, arrays, std::move(work));
    const Napi::Promise promise = task->deferred_.Promise();
    Napi::Object result = Napi::Object::New(env);
    result.Set("done", promise);
    result.Set("cancel", Napi::Function::New(env, [cancelled = task->cancelled_](const Napi::CallbackInfo&) {
                 cancelled->store(true, std::memory_order_relaxed);
               }));
    try {
      task->thread_ = std::thread([task] {
        try {
          task->failure_ = task->work_(*task->cancelled_);
        } catch (const std::bad_alloc&) {
          task->failure_ = OutOfMemory(0, "the work of native code");
        }
        task->completion_.NonBlockingCall();
      });
    } catch (const std::system_error& error) {
      task->failure_ = Internal(std::string("no thread could be started: ") + error.what());
      task->completion_.NonBlockingCall();
    }
    return result;
  }

 private:
  Task(Napi::Env env, const Napi::Object& arrays, Work work)
      : deferred_(Napi::Promise::Deferred::New(env)),
        arrays_(Napi::Persistent(arrays)),
        work_(std::move(work)),
        completion_(Completion::New(env, "engine task", 0, 1, this)) {
    // Runs before the environment takes the thread-safe function down.
    napi_add_env_cleanup_hook(env, OnEnvironmentEnd, this);
  }

  static void OnEnvironmentEnd(void* object) {
    auto* task = static_cast<Task*>(object);
    task->cancelled_->store(true, std::memory_order_relaxed);
    if (task->thread_.joinable()) task->thread_.join();
    task->arrays_.SuppressDestruct();
    delete task;
  }

  static void OnCompletion(Napi::Env env, Napi::Function, Task* task, void*) {
    if (env == nullptr) return;  // the environment has ended
    napi_remove_env_cleanup_hook(env, OnEnvironmentEnd, task);
    if (task->thread_.joinable()) task->thread_.join();
    task->completion_.Release();
    task->deferred_.Resolve(ToJs(env, task->failure_));
    delete task;
  }

  using Completion = Napi::TypedThreadSafeFunction<Task, void, OnCompletion>;

  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference arrays_;
  const Work work_;
  Failure failure_;
  Completion completion_;
  std::thread thread_;
};

// quantizeMatrix(request, { out, sums, importance?, feedback? }): see NativeQuantizeRequest in
// src/backend/native-loader.ts
Napi::Value QuantizeMatrixTask(const Napi::CallbackInfo& info) {
  const auto request = info[0].As<Napi::Object>();
  const auto arrays = info[1].As<Napi::Object>();
  const auto integer = [&](const char* name) { return request.Get(name).ToNumber().Int32Value(); };
  QuantizeRequest work = {};
  work.kernels = kernels::select(request.Get("isa").ToString().Utf8Value().c_str());
  work.file = ToFileStamp(request.Get("file").As<Napi::Object>());
  work.name = request.Get("name").ToString();
  work.weight.offset = request.Get("offset").ToNumber().Int64Value();
  work.weight.dtype = static_cast<kernels::DType>(integer("dtype"));
  work.weight.rows = integer("rows");
  work.weight.columns = integer("columns");
  work.weight.transposed_stride = integer("transposedStride");
  work.target = static_cast<kernels::DType>(integer("target"));
  work.first_panel = integer("firstPanel");
  work.num_panels = integer("numPanels");
  work.threads = integer("threads");
  Arrays typed(info.Env());
  const std::span<uint8_t> out = typed.Get<uint8_t>(arrays.Get("out"));
  const std::span<double> sums = typed.Get<double>(arrays.Get("sums"));
  const std::span<float> importance = typed.Get<float>(arrays.Get("importance"));
  const std::span<float> feedback = typed.Get<float>(arrays.Get("feedback"));
  if (!importance.empty()) work.errors.weights = importance.data();
  if (!feedback.empty()) work.errors.feedback = feedback.data();
  const auto columns = static_cast<size_t>(work.weight.columns);
  const bool fits = typed.ok() && work.kernels != nullptr && sums.size() == 2 &&
                    (importance.empty() || importance.size() == columns) &&
                    (feedback.empty() || feedback.size() == columns * columns);
  return Task::Start(info.Env(), arrays, [=](const std::atomic<bool>& cancelled) -> Failure {
    if (!fits) return Internal(kWrongArrays);
    QuantizeSums total;
    Failure failure = QuantizeMatrix(work, cancelled, out.data(), out.size(), &total);
    sums[0] = total.squared_error;
    sums[1] = total.squared_sum;
    return failure;
  });
}

// addGram({ isa, columns, threads }, { x, gram }): see AddGram
Napi::Value AddGramTask(const Napi::CallbackInfo& info) {
  const auto request = info[0].As<Napi::Object>();
  const auto arrays = info[1].As<Napi::Object>();
  const kernels::Kernels* kernels = kernels::select(request.Get("isa").ToString().Utf8Value().c_str());
  const int32_t columns = request.Get("columns").ToNumber().Int32Value();
  const int32_t threads = request.Get("threads").ToNumber().Int32Value();
  Arrays typed(info.Env());
  const std::span<float> x = typed.Get<float>(arrays.Get("x"));
  const std::span<double> gram = typed.Get<double>(arrays.Get("gram"));
  const auto k = static_cast<size_t>(std::max(columns, 0));
  const bool fits = typed.ok() && kernels != nullptr && threads > 0 && k > 0 && gram.size() == k * k &&
                    x.size() % k == 0 && x.size() / k <= INT32_MAX && !x.empty();
  return Task::Start(info.Env(), arrays, [=](const std::atomic<bool>& cancelled) -> Failure {
    if (!fits) return Internal(kWrongArrays);
    return AddGram(*kernels, x.data(), static_cast<int32_t>(x.size() / k), columns, threads, cancelled, gram.data());
  });
}

// makeErrorModel({ columns, damping, threads }, { gram, weights, feedback }): see MakeErrorModel
Napi::Value MakeErrorModelTask(const Napi::CallbackInfo& info) {
  const auto request = info[0].As<Napi::Object>();
  const auto arrays = info[1].As<Napi::Object>();
  const int32_t columns = request.Get("columns").ToNumber().Int32Value();
  const int32_t threads = request.Get("threads").ToNumber().Int32Value();
  const double damping = request.Get("damping").ToNumber().DoubleValue();
  Arrays typed(info.Env());
  const std::span<double> gram = typed.Get<double>(arrays.Get("gram"));
  const std::span<float> weights = typed.Get<float>(arrays.Get("weights"));
  const std::span<float> feedback = typed.Get<float>(arrays.Get("feedback"));
  const auto k = static_cast<size_t>(std::max(columns, 0));
  const bool fits = typed.ok() && threads > 0 && k > 0 && damping > 0 && gram.size() == k * k && weights.size() == k &&
                    feedback.size() == k * k;
  return Task::Start(info.Env(), arrays, [=](const std::atomic<bool>& cancelled) -> Failure {
    if (!fits) return Internal(kWrongArrays);
    return MakeErrorModel(gram.data(), columns, damping, threads, cancelled, weights.data(), feedback.data());
  });
}

// measure(request, { nanoseconds, measured }): see NativeMeasureRequest in src/backend/native-loader.ts
Napi::Value MeasureTask(const Napi::CallbackInfo& info) {
  const auto request = info[0].As<Napi::Object>();
  const auto arrays = info[1].As<Napi::Object>();
  const auto integer = [&](const char* name) { return request.Get(name).ToNumber().Int32Value(); };
  MeasureRequest work = {};
  work.kernel.kernels = kernels::select(request.Get("isa").ToString().Utf8Value().c_str());
  work.kernel.what = request.Get("what").ToString();
  work.kernel.dtype = integer("dtype");
  work.kernel.rows = integer("rows");
  work.kernel.columns = integer("columns");
  work.kernel.tokens = integer("tokens");
  work.kernel.threads = integer("threads");
  work.kernel.cold_bytes = static_cast<uint64_t>(std::max<int64_t>(0, request.Get("coldBytes").ToNumber()));
  work.oversubscribed = request.Get("oversubscribed").ToBoolean();
  work.budget = request.Get("budget").ToNumber().DoubleValue();
  Arrays typed(info.Env());
  const std::span<double> nanoseconds = typed.Get<double>(arrays.Get("nanoseconds"));
  const std::span<double> results = typed.Get<double>(arrays.Get("measured"));
  const bool fits = typed.ok() && results.size() == 3;
  return Task::Start(info.Env(), arrays, [=](const std::atomic<bool>& cancelled) -> Failure {
    if (!fits) return Internal(kWrongArrays);
    Measured measured;
    Failure failure = Measure(work, cancelled, nanoseconds, &measured);
    results[0] = static_cast<double>(measured.runs);
    results[1] = measured.bytes;
    results[2] = measured.operations;
    return failure;
  });
}

// cudaDevices(path of the library): what it finds, or a failure.
Napi::Value CudaDevices(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::vector<cuda::DeviceInfo> devices;
  if (Failure failure = cuda::ListDevices(info[0].ToString(), &devices)) return ToJs(env, failure);
  Napi::Array list = Napi::Array::New(env, devices.size());
  for (size_t i = 0; i < devices.size(); i++) {
    const cuda::DeviceInfo& device = devices[i];
    const auto version = [](int32_t number) {
      return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
    };
    const int32_t capability = device.limits.compute_capability;
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", device.name);
    entry.Set("computeCapability", std::to_string(capability / 10) + "." + std::to_string(capability % 10));
    entry.Set("usable", capability >= cuda::kMinComputeCapability);
    entry.Set("multiprocessors", device.limits.num_multiprocessors);
    entry.Set("sharedMemory", device.limits.shared_block_bytes);
    entry.Set("memory", static_cast<double>(device.memory_bytes));
    entry.Set("freeMemory", static_cast<double>(device.free_bytes));
    entry.Set("memoryBytesPerSecond", static_cast<double>(device.memory_bytes_per_second));
    entry.Set("driver", version(device.driver_version));
    entry.Set("runtime", version(device.runtime_version));
    list.Set(static_cast<uint32_t>(i), entry);
  }
  return list;
}

// cudaCopyRate(path of the library, device): bytes per second of copies in its memory, or a failure.
Napi::Value CudaCopyRate(const Napi::CallbackInfo& info) {
  cuda::Device device;
  double bytes_per_second = 0;
  Failure failure = cuda::OpenDevice(info[0].ToString(), info[1].ToNumber().Int32Value(), &device);
  if (!failure) failure = cuda::MeasureCopyRate(device, &bytes_per_second);
  return failure ? Napi::Value(ToJs(info.Env(), failure)) : Napi::Number::New(info.Env(), bytes_per_second);
}

// cudaLaunches(cuda as for load, plan words, number of files, tokens, rows, context): the launch plan of such a step as
// text, or a failure.
Napi::Value CudaLaunches(const Napi::CallbackInfo& info) {
  Arrays arrays(info.Env());
  std::vector<int32_t> words;
  arrays.Copy<int32_t>(info[1], &words);
  const auto number = [&](size_t i) { return info[i].ToNumber().Int32Value(); };
  Plan plan;
  if (!arrays.ok()) return ToJs(info.Env(), Internal(kWrongArrays));
  if (std::string problem = DecodePlan(words, static_cast<size_t>(number(2)), &plan); !problem.empty()) {
    return ToJs(info.Env(), Internal(std::move(problem)));
  }
  std::string text;
  const CudaRequest request = ToCudaRequest(info[0].As<Napi::Object>());
  if (Failure failure = cuda::DescribeLaunches(plan, request, {number(3), number(4), number(5)}, &text)) {
    return ToJs(info.Env(), failure);
  }
  return Napi::String::New(info.Env(), text);
}

// isa(limit?): the best instruction set up to `limit`; null for an unknown name.
Napi::Value SelectIsa(const Napi::CallbackInfo& info) {
  const std::string limit = info[0].IsUndefined() ? "" : info[0].ToString().Utf8Value();
  const kernels::Kernels* kernels = kernels::select(info[0].IsUndefined() ? nullptr : limit.c_str());
  if (kernels == nullptr) return info.Env().Null();
  return Napi::String::New(info.Env(), kernels->isa);
}

Napi::Object Initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("abi", kAbiNumber);
  exports.Set("isa", Napi::Function::New<SelectIsa>(env, "isa"));
  exports.Set("Session", SessionObject::Define(env));
  exports.Set("cudaDevices", Napi::Function::New<CudaDevices>(env, "cudaDevices"));
  exports.Set("cudaCopyRate", Napi::Function::New<CudaCopyRate>(env, "cudaCopyRate"));
  exports.Set("cudaLaunches", Napi::Function::New<CudaLaunches>(env, "cudaLaunches"));
  exports.Set("addGram", Napi::Function::New<AddGramTask>(env, "addGram"));
  exports.Set("makeErrorModel", Napi::Function::New<MakeErrorModelTask>(env, "makeErrorModel"));
  exports.Set("measure", Napi::Function::New<MeasureTask>(env, "measure"));
  exports.Set("quantizeMatrix", Napi::Function::New<QuantizeMatrixTask>(env, "quantizeMatrix"));
  return exports;
}

NODE_API_MODULE(engine, Initialize)

}  // namespace
}  // namespace engine
