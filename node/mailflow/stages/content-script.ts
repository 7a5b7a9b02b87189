/** The script at the end of one message: keeps what it may look at while the message goes by, and makes of its verdict what is done with the message. */
import type { Reply } from '../../../protocols/smtp/grammar/index.js';
import type { SessionInfo } from '../../../protocols/smtp/server/handler.js';
import { readHeader, writeHeader } from '../edited-header.js';
import type { AcceptedRecipient } from '../types.js';
import type { Facts } from './facts.js';
import type { RoutingDependencies } from './recipient.js';
import { routeRedirects, unroutable } from './redirects.js';
import type { ScriptRoom, ScriptVerdict } from './scripts.js';
import type { Transaction } from './state.js';

/** What is done with a message. */
export interface ContentRuling {
  refusal?: Reply;
  /** None: it is taken and thrown away. */
  recipients: readonly AcceptedRecipient[];
  /** The client's header as it is stored; undefined: as it came. */
  header?: Buffer;
}

export interface ContentScriptDependencies {
  scripts: ScriptRoom;
  routing: RoutingDependencies;
  session: SessionInfo;
  transaction: Transaction;
  facts: (sizeBytes: number) => Facts;
}

/** Chunks that are shorter together are joined: a client that sends octet by octet must not cost a Buffer for each. */
const joinBytes = 4096;

export class ContentScript {
  readonly #d: ContentScriptDependencies;
  readonly #seen: Buffer[] = [];
  #bytesLeft: number;

  constructor(dependencies: ContentScriptDependencies) {
    this.#d = dependencies;
    this.#bytesLeft = dependencies.scripts.scripts.maxSeenBytes;
  }

  /** The client's next bytes. */
  take(chunk: Buffer): void {
    if (this.#bytesLeft === 0) return;
    const part = chunk.subarray(0, this.#bytesLeft);
    this.#bytesLeft -= part.length;
    const last = this.#seen.at(-1);
    if (last && last.length + part.length <= joinBytes) this.#seen[this.#seen.length - 1] = Buffer.concat([last, part]);
    else this.#seen.push(part);
  }

  /**
   * All of the message has gone by.
   * @param headerBytes the client's header, without the empty line.
   */
  async rule(headerBytes: Buffer, sizeBytes: number, recipients: readonly AcceptedRecipient[]): Promise<ContentRuling> {
    const { scripts, session, transaction, facts, routing } = this.#d;
    const header = readHeader(headerBytes);
    const commands = [...transaction.recipients].filter(([, { isDropped }]) => !isDropped).map(([command]) => command);
    const verdict = await scripts.run('data', session, () => facts(sizeBytes), {
      transaction,
      recipients: recipients.map(({ recipient }) => recipient.address),
      commands,
      message: {
        fields: header.fields,
        sizeBytes,
        bytes: (maxBytes) => Buffer.concat(this.#seen).subarray(0, maxBytes),
      },
    });
    if (!verdict) return { recipients };
    if (verdict.refusal) return { refusal: verdict.refusal, recipients };
    const kept = verdict.isKept ? recipients : [];
    const others = await routeRedirects(routing, transaction.mail, verdict.redirects, verdict.isKept ? 'copies' : 'none');
    if ('code' in others) return this.#failed(verdict, recipients, unroutable(others));
    const edited = verdict.edited && writeHeader(header, verdict.edited);
    const { maxHeaderBytes } = routing.settings();
    if (edited && edited.length > maxHeaderBytes)
      return this.#failed(verdict, recipients, new Error(`the header would have more than ${maxHeaderBytes} bytes`));
    const isChanged = edited !== undefined && !edited.equals(headerBytes);
    return { recipients: [...kept, ...others], ...(isChanged && { header: edited }) };
  }

  #failed({ script }: ScriptVerdict, recipients: readonly AcceptedRecipient[], error: Error): ContentRuling {
    const { scripts, session, transaction } = this.#d;
    const refusal = scripts.failed('data', script, session, transaction, error)?.refusal;
    return { recipients, ...(refusal && { refusal }) };
  }
}
