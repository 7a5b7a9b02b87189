/**
 * A process that commits until it is killed: the victim of the crash test. It begins when it reads a line from standard input:
 * the first number, a space, and the directory.
 */
import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { openEmbeddedStore } from './store.js';

const clients = 8;
let next = 0;

/** One transaction of several keys that must agree; its number goes to standard output after the acknowledgement, unbuffered. */
async function client(store: Awaited<ReturnType<typeof openEmbeddedStore>>): Promise<never> {
  for (;;) {
    const number = next++;
    const name = String(number).padStart(9, '0');
    const value = Buffer.alloc(50 + ((number * 7919) % 9000), number % 251);
    await store.transact(async (tx) => {
      tx.set(Buffer.from(`left/${name}`), value);
      tx.set(Buffer.from(`right/${name}`), value);
      tx.add(Buffer.from('count'), 1n);
      if (number % 10 === 9) tx.set(Buffer.from('ten'), Buffer.from(name));
    });
    writeSync(1, `${number}\n`);
  }
}

const [line] = (await once(process.stdin, 'data')) as [Buffer];
const [first, directory] = line.toString().trim().split(' ') as [string, string];
next = Number(first);
const store = await openEmbeddedStore({ directory });
writeSync(1, 'ready\n');
await Promise.all(Array.from({ length: clients }, () => client(store)));
