import { compilePattern } from './pattern.js';
import { gpt2Words, type PreTokenizer, sequence, splitter } from './pre-tokenizer.js';
import type { Complain } from './problem.js';

/** How a byte-level BPE vocabulary cuts text into words, and what else goes by the same name. */
export interface WordRules {
  /** Applied one after the other, each within the words of those before; matches and what lies between are words. */
  readonly patterns: readonly string[];
  /** A word that is a token is not merged from its bytes. */
  readonly ignoresMerges?: boolean;
  /** The beginning-of-text token is added unless the file says otherwise. */
  readonly addsBos?: boolean;
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const blanks = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
/** Llama 3 and all who took over its pattern, with as many digits to a word as the model has. */
const tiktokenWords = (digits: string) =>
  `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${blanks}`;

const capital = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const small = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
/** GPT-4o and its kin cut before capitals too. */
const casedWords = (ending: string, digits: string) =>
  `[^\\r\\n\\p{L}\\p{N}]?${capital}*${small}+${ending}|[^\\r\\n\\p{L}\\p{N}]?${capital}+${small}*${ending}|` +
  `${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${blanks}`;

const asciiPunctuation = '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]';
const deepseek3Words = `${asciiPunctuation}[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|${blanks}`;
const deepseek3Han = '[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+';

/** Letters with case, as DeepSeek's first tokenizer lists them. */
const deepseekLetters =
  '[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373' +
  '\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f' +
  '\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77' +
  '\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d' +
  '\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb' +
  '\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128' +
  '\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4' +
  '\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf' +
  '\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\u{10400}-\u{1044f}\u{104b0}-\u{104d3}' +
  '\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]';
const deepseekHan = '[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+';

const bloomWords = ' ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+';
const twoCaseContractions = `${contractions}?`;

const gpt2: WordRules = { patterns: [gpt2Words] };
const llama3: WordRules = { patterns: [tiktokenWords('\\p{N}{1,3}')], ignoresMerges: true, addsBos: true };
const llama3WithMerges: WordRules = { patterns: [tiktokenWords('\\p{N}{1,3}')] };
const qwen2: WordRules = { patterns: [tiktokenWords('\\p{N}')] };
const digitsApart: WordRules = { patterns: ['\\p{N}', gpt2Words] };
const deepseek3: WordRules = { patterns: ['\\p{N}{1,3}', deepseek3Han, deepseek3Words] };
const gpt4o: WordRules = { patterns: [casedWords(twoCaseContractions, '\\p{N}{1,3}')] };
const bloom: WordRules = { patterns: [bloomWords] };
const bailing: WordRules = {
  patterns: [
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
  ],
};
const tinyAya: WordRules = {
  patterns: ['\\d{1,3}(?=(?:\\d{3})*\\b)', casedWords(twoCaseContractions, '\\p{N}{1,3}')],
};

/**
 * By `tokenizer.ggml.pre`. The names are those of llama.cpp's converter; the patterns are those of the models' own
 * tokenizer.json, so where llama.cpp's regular expressions only come near them (cases of non-Latin letters in the
 * GPT-4o family), the words here are the model's.
 */
const rulesByName: Readonly<Record<string, WordRules>> = {
  default: { patterns: ['[\\p{P}$+<=>^~|]+', gpt2Words, '\\p{N}+', '[0-9][0-9][0-9]'] },
  'gpt-2': gpt2,
  'phi-2': gpt2,
  mpt: gpt2,
  olmo: gpt2,
  jais: gpt2,
  trillion: gpt2,
  'granite-docling': gpt2,
  gigachat: gpt2,
  'a.x-4.0': gpt2,
  mellum: gpt2,
  exaone4: gpt2,
  'modern-bert': gpt2,
  'roberta-bpe': gpt2,
  'jina-es': gpt2,
  'jina-de': gpt2,
  'jina-v1-en': gpt2,
  'jina-v2-es': gpt2,
  'jina-v2-de': gpt2,
  'jina-v2-code': gpt2,
  llama3,
  'llama-v3': llama3,
  'llama-bpe': llama3,
  falcon3: llama3,
  'falcon-h1': llama3,
  pixtral: llama3,
  'midm-2.0': llama3,
  lfm2: llama3,
  'jina-v5-nano': llama3,
  dbrx: llama3WithMerges,
  'smaug-bpe': llama3WithMerges,
  glm4: llama3WithMerges,
  'chatglm-bpe': llama3WithMerges,
  qwen2,
  'deepseek-r1-qwen': qwen2,
  kormo: qwen2,
  f2llmv2: qwen2,
  megrez: qwen2,
  stablelm2: qwen2,
  hunyuan: qwen2,
  'solar-open': qwen2,
  'grok-2': qwen2,
  qwen35: {
    patterns: [
      `${contractions}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${blanks}`,
    ],
  },
  ufakzeka: { patterns: [`[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${blanks}`] },
  laguna: { patterns: ['[^\\n]+|[\\n]+', tiktokenWords('\\p{N}')] },
  minicpm5: { patterns: ['\\p{N}{1,3}', tiktokenWords('\\p{N}+')], ignoresMerges: true },
  'seed-coder': {
    patterns: [`${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|${blanks}`],
  },
  bailingmoe: bailing,
  bailingmoe2: bailing,
  'llada-moe': bailing,
  'exaone-moe': {
    patterns: [
      `${contractions}|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`,
    ],
  },
  'jais-2': {
    patterns: [
      `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|` +
        `${[512, 256, 128, 64, 32, 16, 8, 4].map((n) => `\\s{${n}}(?!\\S)`).join('|')}|\\s{1,2}(?!\\S)|\\s{1}`,
    ],
  },
  falcon: { patterns: ['[\\p{P}$+<=>^~|`]+', gpt2Words, '[0-9][0-9][0-9]'] },
  starcoder: digitsApart,
  refact: digitsApart,
  'command-r': digitsApart,
  smollm: digitsApart,
  codeshell: digitsApart,
  exaone: digitsApart,
  'minerva-7b': digitsApart,
  mellum2: digitsApart,
  'poro-chat': bloom,
  bloom,
  'gpt3-finnish': bloom,
  viking: { patterns: [bloomWords, '\\p{N}'] },
  'deepseek-llm': {
    patterns: [
      '[\\r\\n]',
      `\\s?${deepseekLetters}+`,
      '\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+',
      '\\s+$',
      deepseekHan,
      '\\p{N}+',
    ],
  },
  'deepseek-coder': { patterns: ['[\\r\\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', deepseekHan, '\\p{N}'] },
  'deepseek-v3': deepseek3,
  'hunyuan-dense': deepseek3,
  hy_v4: deepseek3,
  'joyai-llm': deepseek3,
  spark2_5: {
    patterns: [
      '\\p{N}{1,3}',
      deepseek3Han,
      `${asciiPunctuation}[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+`,
      '\\p{N}',
    ],
  },
  youtu: {
    patterns: [
      '[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+',
      casedWords(twoCaseContractions, '\\p{N}'),
    ],
    ignoresMerges: true,
  },
  afmoe: {
    patterns: [
      // Groups of three digits, counted from the end of the number.
      '\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))',
      '[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+',
      deepseek3Words,
    ],
  },
  tekken: { patterns: [casedWords('', '\\p{N}')], ignoresMerges: true, addsBos: true },
  'gpt-4o': gpt4o,
  llama4: gpt4o,
  kanana2: gpt4o,
  talkie: gpt4o,
  'minimax-m2': gpt4o,
  'granite-embed-multi-97m': { ...gpt4o, ignoresMerges: true },
  tiny_aya: tinyAya,
  cohere2moe: tinyAya,
  superbpe: { patterns: ['\\p{N}+', '(?=(\\d{3})+(?!\\d))'] },
  chameleon: {
    patterns: [
      '<sentinel:[0-9]+>',
      '(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z',
      '([\\t\\n]|    |  )',
      '\\p{N}',
      '[\\p{P}!-/:-@\\[-`{-~]',
      gpt2Words,
    ],
    addsBos: true,
  },
};

/** Throws TOKENIZER_INVALID for a name that is not known: with other words, every token id would be another. */
export function wordRules(name: string, complain: Complain): WordRules {
  const rules = Object.hasOwn(rulesByName, name) ? rulesByName[name] : undefined;
  if (rules !== undefined) return rules;
  throw complain(
    `tokenizer.ggml.pre ${JSON.stringify(name)} is not known; known: ${Object.keys(rulesByName).join(', ')}`,
  );
}

export function wordSplitter({ patterns }: WordRules, complain: Complain): PreTokenizer {
  return sequence(patterns.map((pattern) => splitter(compilePattern(pattern, complain), 'Isolated')));
}
