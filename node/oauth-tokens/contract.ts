/** What an access token says once it is checked. */

export type TokenVerdict =
  | { isGood: true; address: string }
  | {
      isGood: false;
      /**
       * `forged`: no token of ours at all: malformed, of an unknown issuer, wrongly signed, not active. `stale`: a real one that does not hold here: expired,
       * for another audience, without an address. `scope`: it lacks a required scope. `unavailable`: the issuer can't be asked.
       */
      reason: 'forged' | 'stale' | 'scope' | 'unavailable';
      /** For the log; holds nothing of the token but its issuer. */
      detail: string;
      /** For the client: what it would need. */
      scope?: string;
      openidConfiguration?: string;
    };

export interface TokenVerifier {
  /** Whether any issuer is set. */
  readonly isUsable: boolean;
  /** Never throws. */
  verify(token: string): Promise<TokenVerdict>;
}
