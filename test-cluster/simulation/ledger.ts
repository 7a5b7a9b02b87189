/** What clients were promised, and what they have asked for without hearing of the outcome. The truth that the store is held against at the end. */

export interface Submission {
  token: string;
  from: string;
  /** Account ids. */
  local: string[];
  /** Addresses. */
  remote: string[];
  /** Name of the node that it was handed to. */
  node: string;
  /** `unheard`: nothing was said, so it may be there or not. */
  state: 'open' | 'acknowledged' | 'refused' | 'unheard';
}

export interface Appended {
  accountId: string;
  mailboxId: string;
  uid: number;
}

/** `never`: an answer was not heard, and what was asked for then may still come about. */
type KnownFlags = Map<string, boolean | 'never'>;

export class Ledger {
  readonly submissions = new Map<string, Submission>();
  readonly appended: Appended[] = [];
  /** `account/mailbox/uid` to what clients know of its keywords. */
  readonly flags = new Map<string, KnownFlags>();
  /** `account/mailbox/uid` that clients have wanted gone. */
  readonly unwanted = new Set<string>();
  /** Of these, those that they were told are gone. */
  readonly gone = new Set<string>();
  readonly #tokens = new Map<string, string>();
  readonly #blobs = new Map<string, string>();

  /** The content of a submission has been taken in under this id. */
  named(blobId: string, token: string): void {
    this.#tokens.set(blobId, token);
    this.#blobs.set(token, blobId);
  }

  blobOf(token: string): string | undefined {
    return this.#blobs.get(token);
  }

  tokenOf(blobId: string): string | undefined {
    return this.#tokens.get(blobId);
  }

  know(place: string, keyword: string, isSet: boolean | 'never'): void {
    let flags = this.flags.get(place);
    if (!flags) this.flags.set(place, (flags = new Map()));
    if (flags.get(keyword) !== 'never') flags.set(keyword, isSet);
  }

  get acknowledged(): Submission[] {
    return [...this.submissions.values()].filter(({ state }) => state === 'acknowledged');
  }
}

export const placeOf = (accountId: string, mailboxId: string, uid: number): string => `${accountId}/${mailboxId}/${uid}`;
