import { parentPort } from 'node:worker_threads';
import { invariant } from '../base/errors.js';
import type { StepResult } from './backend.js';
import { ReferenceInterpreter } from './reference.js';
import { describeError, type ReferenceAnswer, type ReferenceRequest } from './reference-messages.js';

/** The thread in which a reference session runs its plan. */
invariant(parentPort, 'reference-worker.js is started by the reference backend only');
const port = parentPort;

let interpreter: ReferenceInterpreter | null = null;

function answer(request: ReferenceRequest): StepResult | Float32Array | null {
  if (request.kind === 'load') {
    interpreter = new ReferenceInterpreter(request.plan, request.weights, request.limits, request.options);
    return null;
  }
  invariant(interpreter, 'the first request loads the plan');
  switch (request.kind) {
    case 'step':
      return interpreter.step(request.batch, request.want);
    case 'read':
      return interpreter.read(request.buffer);
    case 'copyBlocks':
      interpreter.blocks.copy(request.pairs);
      return null;
    case 'saveBlocks':
      interpreter.blocks.save(request.path, request.blocks, request.label);
      return null;
    case 'loadBlocks':
      interpreter.blocks.load(request.path, request.blocks, request.label);
      return null;
  }
}

/** The buffers of a result move to the other thread instead of being copied. */
function buffersOf(value: StepResult | Float32Array | null): ArrayBuffer[] {
  if (value === null) return [];
  const arrays = value instanceof Float32Array ? [value] : Object.values(value);
  return arrays.map((array) => array.buffer as ArrayBuffer);
}

port.on('message', (request: ReferenceRequest) => {
  let message: ReferenceAnswer;
  let transfer: ArrayBuffer[] = [];
  try {
    const value = answer(request);
    message = { kind: 'value', value };
    transfer = buffersOf(value);
  } catch (error) {
    message = describeError(error);
  }
  port.postMessage(message, transfer);
});
