/** Which annotations have changed since the last look (RFC 5465 5.6, 5.7): the logs say only that something about a mailbox has. */
import { createHash } from 'node:crypto';
import type { SessionContext } from './context.js';
import { formatAstring } from './grammar/format.js';
import { annotationPlace } from './metadata.js';
import type { MailboxPlace } from './places.js';

export class AnnotationWatch {
  readonly #context: SessionContext;
  /** By mailbox ('' for the server): digests of the values by entry, because a mailbox may have megabytes of annotations. */
  readonly #known = new Map<string, Map<string, string>>();

  constructor(context: SessionContext) {
    this.#context = context;
  }

  /** Entries of a mailbox (of the server without one) that are not what they were when this was last called; at the first call of no interest. */
  async changed(place: MailboxPlace | undefined): Promise<string[]> {
    const key = place ? `${place.accountId}/${place.mailbox.id}` : '';
    const before = this.#known.get(key) ?? new Map<string, string>();
    const after = new Map<string, string>();
    const { annotations } = this.#context.services.mail;
    // The server's shared ones are settings of the operator.
    for (const root of place ? (['/private', '/shared'] as const) : (['/private'] as const))
      for (const { name, value } of await annotations.beneath(annotationPlace(this.#context, place, root), ''))
        after.set(root + name, createHash('sha256').update(value).digest('base64'));
    this.#known.set(key, after);
    const changed: string[] = [];
    for (const [entry, value] of after) if (before.get(entry) !== value) changed.push(entry);
    for (const entry of before.keys()) if (!after.has(entry)) changed.push(entry);
    return changed.sort().map(formatAstring);
  }
}
