import { bytesToAlphabet } from '../../src/tokenizer/byte-alphabet.js';
import { list } from '../formats/gguf-writer.js';
import { tinyGgufShapes, tinyMetadata } from '../model/sources.js';
import { TinyTensors, writeTinyGguf } from '../model/tiny-checkpoint.js';

/** Writes turns as <|im_start|>ROLE\nCONTENT<|im_end|>\n, and refuses a conversation that does not alternate. */
export const tinyTemplate = `{%- for m in messages -%}
{%- if not loop.first and m.role == messages[loop.index0 - 1].role %}{{ raise_exception('roles must alternate') }}{% endif -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}`;

const special = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'];

/** A model with random weights and a vocabulary of bytes: what it says means nothing, and is always the same. */
export function writeTinyChatModel(path: string, template: string | null = tinyTemplate, contextLength = 256): string {
  const tokens = [...Array.from({ length: 256 }, (_, byte) => bytesToAlphabet([byte])), ...special];
  const metadata = {
    ...tinyMetadata,
    'llama.context_length': contextLength,
    'llama.vocab_size': tokens.length,
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'gpt-2',
    'tokenizer.ggml.tokens': list('string', tokens),
    'tokenizer.ggml.token_type': list(
      'int32',
      Int32Array.from(tokens, (_, id) => (id < 256 ? 1 : 3)),
    ),
    'tokenizer.ggml.merges': list('string', []),
    'tokenizer.ggml.eos_token_id': tokens.indexOf('<|im_end|>'),
    ...(template !== null && { 'tokenizer.chat_template': template }),
  };
  const made = new TinyTensors(7);
  for (const [name, shape] of Object.entries({ ...tinyGgufShapes, 'token_embd.weight': [tokens.length, 32] })) {
    if (shape.length === 1) made.norm(name, shape[0]!);
    else made.matrix(name, [shape[0]!, shape[1]!]);
  }
  return writeTinyGguf(path, metadata, made.tensors);
}
