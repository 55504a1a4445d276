/** The place of a weight in the architecture. Those of layers come once per layer. */
export type Role =
  | 'embedding'
  | 'positions'
  | 'finalNorm'
  | 'head'
  | 'attentionNorm'
  | 'query'
  | 'key'
  | 'value'
  | 'queryNorm'
  | 'keyNorm'
  | 'attentionOutput'
  | 'mlpNorm'
  | 'gate'
  | 'up'
  | 'down';

/** How a checkpoint names its tensors: `.weight` and `.bias` follow, # stands for the layer's number. */
export interface Names {
  readonly roles: Readonly<Partial<Record<Role, string>>>;
  /** A tensor that stacks the rows of several roles, in this order; it counts where a role has no tensor of its own. */
  readonly stacked?: { readonly name: string; readonly roles: readonly Role[] };
  /** What checkpoints of the bare model, without its head, leave out at the start of every name. */
  readonly prefix: string;
  /** Matrices of the layers are stored as [columns, rows]. */
  readonly transposed: boolean;
  /** Tensors that carry nothing a forward pass needs. */
  readonly ignored: RegExp;
}

/** GGUF: one table for all families (ggml's docs/gguf.md, "Standardized tensor names"). */
export const ggufNames: Names = {
  roles: {
    embedding: 'token_embd',
    positions: 'position_embd',
    finalNorm: 'output_norm',
    head: 'output',
    attentionNorm: 'blk.#.attn_norm',
    query: 'blk.#.attn_q',
    key: 'blk.#.attn_k',
    value: 'blk.#.attn_v',
    queryNorm: 'blk.#.attn_q_norm',
    keyNorm: 'blk.#.attn_k_norm',
    attentionOutput: 'blk.#.attn_output',
    mlpNorm: 'blk.#.ffn_norm',
    gate: 'blk.#.ffn_gate',
    up: 'blk.#.ffn_up',
    down: 'blk.#.ffn_down',
  },
  stacked: { name: 'blk.#.attn_qkv', roles: ['query', 'key', 'value'] },
  prefix: '',
  transposed: false,
  ignored: /^rope_freqs\.weight$|\.attn_rot_embd\.weight$/,
};

/** Transformers' names for Llama and the families made after it. */
export const llamaNames: Names = {
  roles: {
    embedding: 'model.embed_tokens',
    finalNorm: 'model.norm',
    head: 'lm_head',
    attentionNorm: 'model.layers.#.input_layernorm',
    query: 'model.layers.#.self_attn.q_proj',
    key: 'model.layers.#.self_attn.k_proj',
    value: 'model.layers.#.self_attn.v_proj',
    queryNorm: 'model.layers.#.self_attn.q_norm',
    keyNorm: 'model.layers.#.self_attn.k_norm',
    attentionOutput: 'model.layers.#.self_attn.o_proj',
    mlpNorm: 'model.layers.#.post_attention_layernorm',
    gate: 'model.layers.#.mlp.gate_proj',
    up: 'model.layers.#.mlp.up_proj',
    down: 'model.layers.#.mlp.down_proj',
  },
  prefix: 'model.',
  transposed: false,
  ignored: /^lm_head\.weight$|\.rotary_emb\.inv_freq$/,
};

/** OpenAI's names: `Conv1D` layers hold [in, out], query, key and value in one. */
export const gpt2Names: Names = {
  roles: {
    embedding: 'transformer.wte',
    positions: 'transformer.wpe',
    finalNorm: 'transformer.ln_f',
    head: 'lm_head',
    attentionNorm: 'transformer.h.#.ln_1',
    attentionOutput: 'transformer.h.#.attn.c_proj',
    mlpNorm: 'transformer.h.#.ln_2',
    up: 'transformer.h.#.mlp.c_fc',
    down: 'transformer.h.#.mlp.c_proj',
  },
  stacked: { name: 'transformer.h.#.attn.c_attn', roles: ['query', 'key', 'value'] },
  prefix: 'transformer.',
  transposed: true,
  // attn.bias is no bias but the causal mask.
  ignored: /^lm_head\.weight$|\.attn\.(masked_)?bias$/,
};
