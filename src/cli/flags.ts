import { Option } from 'commander';
import { EngineError } from '../base/errors.js';

/** Reads a number; commander names the flag only in its own errors, so every flag brings its name. */
function numberFor(flag: string) {
  return (value: string): number => {
    const number = value.trim() === '' ? Number.NaN : Number(value);
    if (Number.isNaN(number)) throw new EngineError('OPTION_INVALID', { option: flag, value, expected: 'a number' });
    return number;
  };
}

/** A flag with a numeric value, e.g. `number('-n, --max-tokens <n>', '…')`. */
export function number(flags: string, description: string): Option {
  return new Option(flags, description).argParser(numberFor(/--[a-z-]+/.exec(flags)![0]));
}

/** A flag with one of a few values. */
export function choice(flags: string, description: string, choices: readonly string[]): Option {
  const flag = /--[a-z-]+/.exec(flags)![0];
  return new Option(flags, `${description} (${choices.join(', ')})`).argParser((value: string) => {
    if (choices.includes(value)) return value;
    throw new EngineError('OPTION_INVALID', { option: flag, value, expected: `one of ${choices.join(', ')}` });
  });
}

/** A flag that may be given several times. */
export function repeatable(flags: string, description: string): Option {
  return new Option(flags, description).argParser((value: string, before: string[] | undefined) => [
    ...(before ?? []),
    value,
  ]);
}

export const modelFlag = () =>
  new Option(
    '-m, --model <path>',
    'GGUF or safetensors file, or a folder with config.json (default: the embedded model)',
  );

/** Flags of every command that loads a model to run it. */
export function loadFlags(): Option[] {
  return [
    modelFlag(),
    choice('--backend <name>', 'what runs the model; default auto', ['auto', 'native-cpu', 'reference']),
    number('--threads <n>', 'CPU threads; default: as many as this process may use'),
    number('--context-size <tokens>', "tokens of prompt and answer together; default: the model's, at most 4096"),
    choice('--kv-dtype <type>', 'storage of keys and values; default f32', ['f32', 'f16']),
    choice('--activations <type>', 'inputs of quantised matrices; default auto: q8 on native-cpu, f32 on reference', [
      'auto',
      'f32',
      'q8',
    ]),
  ];
}
