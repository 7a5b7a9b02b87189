/** Errors that carry the HTTP status to answer with. */
import { STATUS_CODES } from 'node:http';

/** Throw it from a handler to answer with this status and a problem body. */
export class HttpError extends Error {
  override readonly name = 'HttpError';
  constructor(
    readonly status: number,
    /** One sentence for the client. */
    readonly detail?: string,
    readonly headers: Readonly<Record<string, string>> = {},
    options?: ErrorOptions,
  ) {
    super(detail ?? reasonPhrase(status), options);
  }
}

/** 'Not Found' for 404; 'Unknown' for a code that nobody has registered. */
export function reasonPhrase(status: number): string {
  return STATUS_CODES[status] ?? 'Unknown';
}
