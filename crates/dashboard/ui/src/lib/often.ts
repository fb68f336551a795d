// For what has no stream: asks again every so often, while somebody looks.

export function often(act: () => void, every: number): () => void {
  const timer = setInterval(() => {
    if (!document.hidden) act();
  }, every);
  return () => clearInterval(timer);
}
