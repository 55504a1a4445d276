// Writes native/op_codes.h from the op table: `npm run generate` (compiles the TypeScript first). A test compares the
// committed header with what this makes of the sources.
import { writeFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';

/**
 * The text of native/op_codes.h.
 * @param {{ opNames: string[], opFields: (name: string) => [string, string][], samplingFields: Record<string, string>,
 *   flags: Record<string, number>, maxTopLogprobs: number, abiNumber: number }} tables
 */
export function opCodesHeader({ opNames, opFields, samplingFields, flags, maxTopLogprobs, abiNumber }) {
  const structs = opNames.map((name) => {
    const fields = opFields(name).map(([field, kind]) => [snake(field), kind]);
    return struct(`${pascal(name)}Op`, fields);
  });
  const record = struct(
    'SamplingRecord',
    Object.entries(samplingFields).map(([field, kind]) => [snake(field), kind]),
  );
  return `// Generated from src/backend/op.ts and src/backend/sampling.ts by \`npm run generate\`; do not edit.
// clang-format off
#pragma once

#include <cstdint>
#include <variant>

namespace engine {

// Changes with the op table, the sampling record and the encoding; compared when the addon is loaded.
inline constexpr int32_t kAbiNumber = ${abiNumber};

// One struct per op, its fields in encoding order. Buffers, weights and RoPE tables are indices; −1 is an absent weight.
${structs.join('\n\n')}

// Alternative i has op code i.
using Op = std::variant<
${opNames.map((name) => `    ${pascal(name)}Op`).join(',\n')}>;

inline constexpr const char* kOpNames[] = {
${opNames.map((name) => `    "${name}",`).join('\n')}
};

// One row of a batch's sampling words.
${record}

${Object.entries(flags)
  .map(([name, value]) => `inline constexpr int32_t kSamplingFlag${pascal(name)} = ${value};`)
  .join('\n')}
inline constexpr int32_t kMaxTopLogprobs = ${maxTopLogprobs};

}  // namespace engine
`;
}

function struct(name, fields) {
  const members = fields.map(([field, kind]) =>
    kind === 'i32' || kind === 'f32'
      ? `  ${kind === 'f32' ? 'float' : 'int32_t'} ${field};`
      : `  int32_t ${field};  // ${kind}`,
  );
  return `struct ${name} {\n${members.join('\n')}\n};`;
}

function snake(name) {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function pascal(name) {
  return name[0].toUpperCase() + name.slice(1);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { opNames, opFields } = await import('../dist/backend/op.js');
  const sampling = await import('../dist/backend/sampling.js');
  const { abiNumber } = await import('../dist/backend/encode-plan.js');
  const { SAMPLE: sample, LOGPROBS: logprobs, samplingFields, MAX_TOP_LOGPROBS: maxTopLogprobs } = sampling;
  const target = fileURLToPath(new URL('../native/op_codes.h', import.meta.url));
  writeFileSync(
    target,
    opCodesHeader({ opNames, opFields, samplingFields, flags: { sample, logprobs }, maxTopLogprobs, abiNumber }),
  );
}
