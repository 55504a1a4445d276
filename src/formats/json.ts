/** A value of a JSON file. Objects have no prototype, so a key called `__proto__` or `toString` is only a key. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;

export interface JsonObject {
  readonly [key: string]: JsonValue;
}
