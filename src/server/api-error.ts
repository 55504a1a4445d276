import { EngineError, type ErrorCode } from '../base/errors.js';

/** An error as OpenAI's clients expect it. */
export interface ApiError {
  readonly status: number;
  /** Seconds. */
  readonly retryAfter: number | null;
  readonly body: {
    readonly error: {
      readonly message: string;
      readonly type: string;
      readonly param: string | null;
      readonly code: string;
    };
  };
}

/** Codes that are not the engine's in lower case: OpenAI's where it has one. */
const codes: { readonly [C in ErrorCode]?: string } = {
  OPTION_INVALID: 'invalid_value',
  TOKEN_ID_INVALID: 'invalid_value',
  PROMPT_EMPTY: 'invalid_value',
  PROMPT_TOO_LONG: 'context_length_exceeded',
  PROMPT_TEXT_TOO_LONG: 'context_length_exceeded',
  PARAMETER_UNSUPPORTED: 'unsupported_parameter',
  BODY_INVALID: 'invalid_json',
  MODEL_UNKNOWN: 'model_not_found',
  API_KEY_INVALID: 'invalid_api_key',
  KEY_BUSY: 'rate_limit_exceeded',
  QUEUE_FULL: 'server_overloaded',
  ROUTE_UNKNOWN: 'not_found',
  METHOD_UNKNOWN: 'method_not_allowed',
  MEDIA_TYPE_UNSUPPORTED: 'unsupported_media_type',
  INTERNAL: 'internal_error',
};

/** When to come back, in seconds. */
const retryAfter: { readonly [C in ErrorCode]?: number } = {
  KEY_BUSY: 1,
  QUEUE_FULL: 1,
  OUT_OF_MEMORY: 5,
  MODEL_LOADING: 2,
  SHUTTING_DOWN: 5,
};

/** Whatever was thrown, as an answer. Names no path of this machine: `modelName` stands for the model's. */
export function apiError(thrown: unknown, modelName: string): ApiError {
  if (!(thrown instanceof EngineError)) return unforeseen();
  const error: EngineError = thrown;
  const told = withApiNames(error, modelName);
  const wait = retryAfter[error.code] ?? null;
  return {
    status: error.status,
    retryAfter: wait,
    body: {
      error: {
        message: told.message,
        type: typeOf(error.status),
        param: parameterOf(told),
        code: codes[error.code] ?? error.code.toLowerCase(),
      },
    },
  };
}

function unforeseen(): ApiError {
  const message = 'the server failed on this request; its log says why';
  return {
    status: 500,
    retryAfter: null,
    body: { error: { message, type: 'server_error', param: null, code: 'internal_error' } },
  };
}

function typeOf(status: number): string {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 429) return 'rate_limit_error';
  return status >= 500 ? 'server_error' : 'invalid_request_error';
}

function isCode<C extends ErrorCode>(error: EngineError, code: C): error is EngineError<C> {
  return error.code === code;
}

function parameterOf(error: EngineError): string | null {
  if (isCode(error, 'OPTION_INVALID')) return error.parameters.option;
  if (isCode(error, 'PARAMETER_UNSUPPORTED')) return error.parameters.parameter;
  if (isCode(error, 'MODEL_UNKNOWN')) return 'model';
  return null;
}

/** The engine's names of options are the library's (topP); a client knows them as the API does (top_p). */
function withApiNames(error: EngineError, modelName: string): EngineError {
  if (isCode(error, 'OPTION_INVALID')) {
    const option = error.parameters.option.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    return new EngineError('OPTION_INVALID', { ...error.parameters, option });
  }
  if ('path' in error.parameters && !isCode(error, 'ROUTE_UNKNOWN') && !isCode(error, 'METHOD_UNKNOWN')) {
    return new EngineError(error.code, { ...error.parameters, path: modelName } as never);
  }
  return error;
}
