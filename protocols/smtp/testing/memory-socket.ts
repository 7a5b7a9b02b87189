/** A socket without a network: what it is fed arrives at once, in the same turn; what the session says is kept. For tests of many small conversations. */
import { Duplex } from 'node:stream';

export class MemorySocket extends Duplex {
  #said: Buffer[] = [];

  constructor() {
    super({ allowHalfOpen: true });
  }

  override _read() {
    // Fed from outside.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void) {
    this.#said.push(chunk);
    done();
  }

  /** The client's octets. */
  feed(octets: string | Buffer) {
    this.emit('data', Buffer.from(octets as string, 'latin1'));
  }

  /** What the session has said since the last call. */
  said(): string {
    return Buffer.concat(this.#said.splice(0)).toString('latin1');
  }
}
