/** Runs an action whose signal Ctrl-C aborts; the second time it ends the program at once. */
export async function withInterrupt<T>(action: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const interrupt = new AbortController();
  const onInterrupt = () => (interrupt.signal.aborted ? process.exit(130) : interrupt.abort());
  process.on('SIGINT', onInterrupt);
  try {
    return await action(interrupt.signal);
  } finally {
    process.off('SIGINT', onInterrupt);
  }
}
