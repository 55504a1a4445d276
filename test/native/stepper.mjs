// Loads a model and runs steps in a process or a worker thread of its own, in one of several manners.
//   process: node stepper.mjs <file with a serialised job> <manner>      worker: workerData { job, manner }
import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { deserialize } from 'node:v8';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { nativeCpuBackend } from '../../dist/backend/native.js';

const { job, manner } = isMainThread
  ? { job: deserialize(readFileSync(process.argv[2])), manner: process.argv[3] }
  : workerData;
const { plan, weights, limits, batch, numSteps } = job;

const session = await nativeCpuBackend({ threads: 2 }).load(plan, weights, limits);

switch (manner) {
  case 'steps then dispose': {
    let last;
    for (let i = 0; i < numSteps; i++) last = await session.step(batch, { logits: true });
    await session.dispose();
    parentPort?.postMessage(last.logits);
    break;
  }
  case 'one step, no dispose':
    await session.step(batch);
    console.log('stepped');
    break;
  case 'leave a step pending':
    // Nothing but the step keeps the process alive.
    session.step(batch).then(() => console.log('stepped'));
    break;
  case 'exit in flight':
    void session.step(batch);
    await setImmediate();
    process.exit(7);
    break;
  case 'throw in flight':
    void session.step(batch);
    await setImmediate();
    throw new Error('thrown with a step in flight');
  case 'wait to be terminated':
    void session.step(batch);
    void session.step(batch);
    parentPort.postMessage('running');
    break;
}
