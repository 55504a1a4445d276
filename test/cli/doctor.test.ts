import { describe, expect, it } from 'vitest';
import { runJson } from './run-cli.js';

describe('engine doctor', () => {
  it('says what this machine has and what will be used', async () => {
    const report = await runJson(['doctor']);
    expect(report.backend).toMatch(/^(native-cpu:|reference)/);
    expect(report.copy_gb_per_second).toBeGreaterThan(0.1);
    const lowered = await runJson(['doctor'], { env: { ENGINE_CPU_ISA: 'scalar' } });
    expect(lowered.backend).toBe('native-cpu:scalar');
  });
});
