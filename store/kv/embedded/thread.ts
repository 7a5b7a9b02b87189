/** Starts a thread of this folder, from the compiled file or, in a source tree, through tsx. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

/** `file` without its ending, beside this one; `workerData` is what the thread finds under that name. */
export function spawnThread(file: string, name: string, workerData: unknown): Worker {
  const compiled = new URL(`./${file}.js`, import.meta.url);
  const options = { workerData, execArgv: [], name };
  if (existsSync(fileURLToPath(compiled))) return new Worker(compiled, options);
  // A source tree (tests, tsx): a thread does not inherit the loader, so it registers one before it imports the TypeScript file.
  const loader = JSON.stringify(import.meta.resolve('tsx/esm/api'));
  const source = JSON.stringify(new URL(`./${file}.ts`, import.meta.url).href);
  const bootstrap = `import(${loader}).then((tsx) => { tsx.register(); return import(${source}); })`;
  return new Worker(bootstrap, { ...options, eval: true });
}
