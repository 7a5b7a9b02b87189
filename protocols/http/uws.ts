/**
 * The part of uWebSockets.js that we use, as types of our own (its npm builds carry none). Comments name what the native code
 * does and does not do where that decides how we call it.
 */

/** Handed to the `listen` callback; false instead of it when the address cannot be bound. */
export type UwsListenSocket = object;

export interface UwsResponse {
  writeStatus(status: string): UwsResponse;
  writeHeader(name: string, value: string): UwsResponse;
  /** One chunk of a chunked body. False: the peer is slow; the rest is kept in native memory until it drains. */
  write(chunk: Uint8Array | string): boolean;
  /** Body bytes that the response has accepted so far. */
  getWriteOffset(): number;
  /** `closeConnection` after `write` corrupts the chunked body with a late header. */
  end(body?: Uint8Array | string, closeConnection?: boolean): UwsResponse;
  /**
   * Only without arguments: given a length above 0 the response never counts as done and the connection's next request is hung up
   * on; given `undefined` it is sent with a length of 2^63.
   */
  endWithoutBody(): UwsResponse;
  /** Part of a body of known total size; what was not taken must be offered again from `getWriteOffset()`. */
  tryEnd(chunk: Uint8Array | string, totalBytes: number): [ok: boolean, done: boolean];
  /** Cuts the connection; `onAborted` fires synchronously. */
  close(): UwsResponse;
  onWritable(handler: (offset: number) => boolean): UwsResponse;
  onAborted(handler: () => void): UwsResponse;
  /** `chunk` is neutered when the handler returns: copy it. */
  onData(handler: (chunk: ArrayBuffer, isLast: boolean) => void): UwsResponse;
  getRemoteAddressAsText(): ArrayBuffer;
  /**
   * The address in the last PROXY protocol v2 header; empty without one, or where it names none (also of LOCAL with an address, which
   * counts). The engine takes one before each request, from anybody, also within TLS and never before TLS; with more than 36 bytes
   * after the fixed 16 (TLVs) the connection stalls. Version 1 is a bad request.
   */
  getProxiedRemoteAddressAsText(): ArrayBuffer;
  cork(handler: () => void): UwsResponse;
  pause(): void;
  resume(): void;
}

/** Lives on the native stack: valid only until the handler returns. */
export interface UwsRequest {
  getHeader(lowerCaseName: string): string;
  getUrl(): string;
  getCaseSensitiveMethod(): string;
  getQuery(): string | undefined;
  forEach(callback: (name: string, value: string) => void): void;
}

export interface UwsCertificateFiles {
  key_file_name?: string;
  cert_file_name?: string;
}

export type UwsHandler = (res: UwsResponse, req: UwsRequest) => void;

export interface UwsApp {
  any(pattern: string, handler: UwsHandler): UwsApp;
  /** Selects the router that later calls register on; stays where it was when `name` is unknown. */
  domain(name: string): UwsApp;
  addServerName(name: string, files: UwsCertificateFiles): UwsApp;
  missingServerName(callback: (name: string) => void): UwsApp;
  /** Called with +1 when a connection opens (before TLS) and −1 when it has closed. */
  filter(callback: (res: UwsResponse, change: 1 | -1) => void): UwsApp;
  listen(host: string, port: number, options: number, callback: (socket: UwsListenSocket | false) => void): UwsApp;
  close(): UwsApp;
  /** An app with children accepts connections and hands each of them to a child. */
  addChildAppDescriptor(descriptor: unknown): UwsApp;
  removeChildAppDescriptor(descriptor: unknown): UwsApp;
  getDescriptor(): unknown;
}

export interface Uws {
  App(): UwsApp;
  SSLApp(files: UwsCertificateFiles): UwsApp;
  us_listen_socket_close(socket: UwsListenSocket): void;
  us_socket_local_port(socket: UwsListenSocket): number;
  LIBUS_LISTEN_EXCLUSIVE_PORT: number;
}
