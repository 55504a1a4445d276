/** Milliseconds of processor time that the fastest of three runs takes; waiting for other work does not count. */
export function cpuTime(run: () => void): number {
  const times = [1, 2, 3].map(() => {
    const before = process.cpuUsage();
    run();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  });
  return Math.min(...times);
}
