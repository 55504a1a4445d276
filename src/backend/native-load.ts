import { EngineError } from '../base/errors.js';
import type { Backend } from './backend.js';
import { type EncodedPlan, encodePlan } from './encode-plan.js';
import type { NativeAddon, NativeLoadRequest } from './native-loader.js';
import { engineError, NativeSession } from './native-session.js';
import type { Plan } from './plan.js';

/** A backend's `load` that makes sessions in native code with these settings. `maxSteps`: see Session. */
export function nativeLoad(
  addon: NativeAddon,
  settings: Omit<NativeLoadRequest, keyof EncodedPlan>,
  maxSteps: (plan: Plan) => number,
): Backend['load'] {
  return async (plan, weights, limits, signal) => {
    const aborted = () => new EngineError('ABORTED', {}, { cause: signal?.reason });
    if (signal?.aborted) throw aborted();
    const encoded = encodePlan(plan, weights, limits);
    const handle = new addon.Session();
    const onAbort = () => void handle.dispose();
    signal?.addEventListener('abort', onAbort, { once: true });
    const failure = await handle.load({ ...encoded, ...settings });
    signal?.removeEventListener('abort', onAbort);
    if (failure || signal?.aborted) {
      await handle.dispose();
      throw signal?.aborted ? aborted() : engineError(failure!);
    }
    return new NativeSession(handle, plan, limits, maxSteps(plan));
  };
}
