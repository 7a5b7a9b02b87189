/** FLAGS and PERMANENTFLAGS of a selected mailbox, and what of them one client has been told: a keyword must be listed before a FETCH shows it (RFC 3501 7.2.6). */
import { flagNames, keywordOf, systemFlags } from './grammar/format.js';
import { flagRights, type MailboxPlace, ownersRights } from './places.js';

/** Listed everywhere; there may be any number of others (`\*`). */
const commonKeywords = '$Forwarded $MDNSent $Junk $NotJunk $Phishing $Important';
const common: ReadonlySet<string> = new Set(`${systemFlags} ${commonKeywords}`.split(' ').map((flag) => keywordOf(flag) ?? ''));
/** Further keywords that are listed; of more than that, those that came last. */
const maxListedKeywords = 100;

const none: ReadonlySet<string> = new Set();

export class ToldKeywords {
  /** The index's own list, of which the first `#count` have been told: ten thousand sessions share it. */
  #list: readonly string[];
  #count: number;
  /** Told before the index knew of them. */
  #ahead: Set<string> | undefined;

  constructor(list: readonly string[]) {
    this.#list = list;
    this.#count = list.length;
  }

  /** Whether the index knows of keywords that have not been told. Cheap. */
  isBehind(list: readonly string[]): boolean {
    return list !== this.#list || list.length > this.#count;
  }

  /** Takes the index's list, and further keywords that are about to be shown, as told; answers whether the client must hear of it. */
  follow(list: readonly string[], shown: ReadonlySet<string> = none): boolean {
    let isNews = false;
    if (this.isBehind(list)) {
      const isSame = list === this.#list;
      const told = isSame ? none : new Set(this.#list.slice(0, this.#count));
      for (let at = isSame ? this.#count : 0; at < list.length; at++) if (!this.#knows(list[at]!, told)) isNews = true;
      this.#list = list;
      this.#count = list.length;
      this.#ahead = undefined;
    }
    for (const keyword of shown) {
      if (this.#knows(keyword) || this.#list.indexOf(keyword) >= 0) continue;
      this.#ahead ??= new Set();
      this.#ahead.add(keyword);
      isNews = true;
    }
    return isNews;
  }

  #knows(keyword: string, told?: ReadonlySet<string>): boolean {
    return common.has(keyword) || told?.has(keyword) === true || this.#ahead?.has(keyword) === true;
  }

  /** The responses, each without `* ` and line end. */
  responses(place: MailboxPlace, isReadOnly: boolean): readonly string[] {
    const list = this.#list;
    const count = this.#count;
    if (this.#ahead || place.rights !== ownersRights) return this.#made(place, isReadOnly);
    const known = ownersResponses.get(list);
    if (known?.count === count && known.isReadOnly === isReadOnly) return known.responses;
    const responses = this.#made(place, isReadOnly);
    ownersResponses.set(list, { count, isReadOnly, responses });
    return responses;
  }

  #made(place: MailboxPlace, isReadOnly: boolean): string[] {
    const others = [...this.#list.slice(0, this.#count), ...(this.#ahead ?? [])].filter((keyword) => !common.has(keyword));
    const flags = `${systemFlags} ${commonKeywords} ${flagNames(others).slice(-maxListedKeywords).join(' ')}`.trimEnd();
    const permanent = isReadOnly ? '' : permanentFlags(flags, place);
    return [`FLAGS (${flags})`, `OK [PERMANENTFLAGS (${permanent})] Flags that can be changed`];
  }
}

/** What an owner was told last of an index's list: each SELECT of the mailbox tells the same. Such a list only grows. */
const ownersResponses = new WeakMap<readonly string[], { count: number; isReadOnly: boolean; responses: readonly string[] }>();

/** Of these, the flags that may be changed (RFC 4314 5.2), and whether others may be made. */
function permanentFlags(flags: string, { rights }: MailboxPlace): string {
  const allowed = flagRights(rights);
  const kept = flags.split(' ').filter((flag) => {
    if (flag === '\\Seen') return allowed.seen;
    return flag === '\\Deleted' ? allowed.deleted : allowed.others;
  });
  return [...kept, ...(allowed.others ? ['\\*'] : [])].join(' ');
}
