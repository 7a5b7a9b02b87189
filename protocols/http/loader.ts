/**
 * Finds the native HTTP engine: an installed `uWebSockets.js` (upstream's own package, put there by the operator) first, else the
 * build for this platform from `@uwsjs/*`. Says in one sentence what to install when there is none.
 */
import { createRequire } from 'node:module';
import type { Uws } from './uws.js';

/** Header block limit, bytes; the engine's own 4 KB is too small for bearer tokens and OIDC cookies. Read by it when it is loaded. */
export const maxHeaderBlockBytes = 16_384;

export interface EngineHost {
  platform: string;
  arch: string;
  nodeMajor: number;
  require(name: string): unknown;
}

const thisHost: EngineHost = {
  platform: process.platform,
  arch: process.arch,
  nodeMajor: Number(process.versions.node.split('.')[0]),
  require: createRequire(import.meta.url),
};

let loaded: Uws | undefined;

/**
 * The engine, loaded at the first call.
 * @throws Error whose message says what to install.
 */
export function loadUws(): Uws {
  loaded ??= findUws(thisHost);
  return loaded;
}

/** The search behind `loadUws`, on a given host. */
export function findUws(host: EngineHost): Uws {
  process.env['UWS_HTTP_MAX_HEADERS_SIZE'] ??= String(maxHeaderBlockBytes);
  const platformPackage = `@uwsjs/${host.platform}-${host.arch}-${host.nodeMajor}`;
  const reasons: string[] = [];
  for (const name of ['uWebSockets.js', platformPackage]) {
    try {
      const found = host.require(name);
      if (isUws(found)) return found;
      reasons.push(`${name} is installed but is not the engine`);
    } catch (error) {
      if (isMissing(error, name)) reasons.push(`${name} is not installed`);
      else reasons.push(`${name} does not load: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`);
    }
  }
  throw new Error(
    `The HTTP engine for Node ${host.nodeMajor} on ${host.platform}-${host.arch} is missing (${reasons.join('; ')}). ` +
      `Run "npm ci" again with this Node version (it brings ${platformPackage} where that exists), or install upstream's package ` +
      'with "npm install uNetworking/uWebSockets.js#v20.51.0".',
  );
}

/** Upstream's package is a namespace object under `default` when it was imported as a module, itself when required. */
function isUws(candidate: unknown): candidate is Uws {
  return typeof (candidate as Partial<Uws> | undefined)?.SSLApp === 'function';
}

function isMissing(error: unknown, name: string): boolean {
  const { code, message } = error as NodeJS.ErrnoException;
  return code === 'MODULE_NOT_FOUND' && message.includes(`'${name}'`);
}
