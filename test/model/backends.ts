import { test } from 'vitest';
import type { Batch, SessionLimits, StepResult, Want, WeightTable } from '../../src/backend/backend.js';
import { nativeCpuBackend, nativeInfo } from '../../src/backend/native.js';
import type { Plan } from '../../src/backend/plan.js';
import { ReferenceInterpreter } from '../../src/backend/reference.js';
import { sharedData, skipReason } from '../shared-data.js';

/** As much of a session as running a model takes. */
export interface TestSession {
  step(batch: Batch, want?: Want): StepResult | Promise<StepResult>;
  dispose?(): Promise<void>;
}

export interface TestBackend {
  readonly name: string;
  /** Why it cannot run here; its tests are skipped with this reason. */
  readonly unavailable: string | null;
  load(plan: Plan, weights: WeightTable, limits: SessionLimits): TestSession | Promise<TestSession>;
}

/** Every backend that has to compute what a model's authors computed. */
export const testBackends: readonly TestBackend[] = [
  {
    name: 'reference',
    unavailable: null,
    load: (plan, weights, limits) => new ReferenceInterpreter(plan, weights, limits),
  },
  {
    name: 'native-cpu',
    unavailable: nativeInfo().binary === null ? 'the native addon is not built' : null,
    load: (plan, weights, limits) => nativeCpuBackend().load(plan, weights, limits),
  },
];
/** Registers a test once per backend; where one cannot run, a skipped test whose name states the reason. */
export function testOnBackends(name: string, body: (backend: TestBackend) => Promise<void>, timeoutMs?: number): void {
  for (const backend of testBackends) {
    const full = `${name} [${backend.name}]`;
    if (backend.unavailable === null) test(full, () => body(backend), timeoutMs);
    else test.skip(`${full} (skipped: ${backend.unavailable})`, () => {});
  }
}

/** The same for tests that need shared test data; `body` gets its absolute path. */
export function testOnBackendsWithData(
  relativePath: string,
  name: string,
  body: (backend: TestBackend, path: string) => Promise<void>,
  timeoutMs?: number,
): void {
  const path = sharedData(relativePath);
  if (path === null) test.skip(`${name} (${skipReason(relativePath)})`, () => {});
  else testOnBackends(name, (backend) => body(backend, path), timeoutMs);
}
