import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { abiNumber } from '../../src/backend/encode-plan.js';
import { opFields, opNames } from '../../src/backend/op.js';
import { LOGPROBS, MAX_TOP_LOGPROBS, SAMPLE, samplingFields } from '../../src/backend/sampling.js';

interface Generator {
  opCodesHeader(tables: Readonly<Record<string, unknown>>): string;
}

it('native/op_codes.h is what npm run generate makes of the op table', async () => {
  const { opCodesHeader } = (await import(
    new URL('../../scripts/generate-op-codes.mjs', import.meta.url).href
  )) as Generator;
  const header = opCodesHeader({
    opNames,
    opFields,
    samplingFields,
    flags: { sample: SAMPLE, logprobs: LOGPROBS },
    maxTopLogprobs: MAX_TOP_LOGPROBS,
    abiNumber,
  });
  expect(readFileSync(new URL('../../native/op_codes.h', import.meta.url), 'utf8')).toBe(header);
});
