/** One JSON document of an issuer over HTTP: no redirects (they could lead into our own network), a time limit, a size limit. */

/** The issuer did not answer with what it should. */
export class IssuerError extends Error {
  override readonly name = 'IssuerError';
}

/** Keys, discovery documents and answers are a few kilobytes. */
const maxBodyBytes = 262_144;

export interface JsonRequest {
  url: string;
  timeoutMs: number;
  /** Sent as `application/x-www-form-urlencoded` by POST. Absent: GET. */
  form?: URLSearchParams;
  authorization?: string;
}

/** The object in the body. Throws `IssuerError` for everything but a 200 with a JSON object. */
export async function fetchJson({ url, timeoutMs, form, authorization }: JsonRequest): Promise<Record<string, unknown>> {
  const { origin, pathname } = new URL(url);
  const where = `${origin}${pathname}`;
  try {
    const response = await fetch(url, {
      method: form ? 'POST' : 'GET',
      redirect: 'error',
      headers: { accept: 'application/json', ...(authorization === undefined ? {} : { authorization }) },
      ...(form && { body: form }),
      signal: AbortSignal.timeout(timeoutMs),
    });
    if (response.status !== 200) {
      await response.body?.cancel();
      throw new IssuerError(`${where} answers ${response.status}`);
    }
    const value = JSON.parse(await boundedText(response, where)) as unknown;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new IssuerError(`${where}: no JSON object`);
    return value as Record<string, unknown>;
  } catch (error) {
    if (error instanceof IssuerError) throw error;
    throw new IssuerError(`${where}: ${(error as Error).message}`, { cause: error });
  }
}

async function boundedText(response: Response, where: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += (chunk as Uint8Array).length;
    if (size > maxBodyBytes) throw new IssuerError(`${where}: the answer is longer than ${maxBodyBytes} bytes`);
    chunks.push(chunk as Uint8Array);
  }
  return Buffer.concat(chunks).toString('utf8');
}
