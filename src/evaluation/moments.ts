/** Mean and spread of numbers that arrive one by one, by Welford's recurrence (Technometrics 4:3, 1962). */
export class Moments {
  #count = 0;
  #mean = 0;
  #m2 = 0; // sum of squared differences from the mean
  #numInfinite = 0;

  /** Throws nothing; +Infinity is counted apart, so that what is saved is always a number that JSON can hold. */
  push(value: number): void {
    if (value === Number.POSITIVE_INFINITY) {
      this.#numInfinite++;
      return;
    }
    this.#count++;
    const difference = value - this.#mean;
    this.#mean += difference / this.#count;
    this.#m2 += difference * (value - this.#mean);
  }

  /** All numbers, infinite ones too. */
  get count(): number {
    return this.#count + this.#numInfinite;
  }

  get numInfinite(): number {
    return this.#numInfinite;
  }

  /** NaN of nothing. */
  get mean(): number {
    if (this.#numInfinite > 0) return Number.POSITIVE_INFINITY;
    return this.#count === 0 ? Number.NaN : this.#mean;
  }

  /** Standard error of the mean if the numbers are independent; null of fewer than two numbers, or if one is infinite. */
  get standardError(): number | null {
    if (this.#numInfinite > 0 || this.#count < 2) return null;
    return Math.sqrt(this.#m2 / (this.#count - 1) / this.#count);
  }

  /** The four numbers that `Moments.restore` takes. */
  save(): number[] {
    return [this.#count, this.#mean, this.#m2, this.#numInfinite];
  }

  /** Goes on, to the last bit, where `save` was called; null if these are not its numbers. */
  static restore(saved: unknown): Moments | null {
    if (!Array.isArray(saved) || saved.length !== 4 || !saved.every(Number.isFinite)) return null;
    const [count, mean, m2, numInfinite] = saved as [number, number, number, number];
    if (!Number.isSafeInteger(count) || !Number.isSafeInteger(numInfinite)) return null;
    if (count < 0 || numInfinite < 0 || m2 < 0) return null;
    const moments = new Moments();
    moments.#count = count;
    moments.#mean = mean;
    moments.#m2 = m2;
    moments.#numInfinite = numInfinite;
    return moments;
  }
}
