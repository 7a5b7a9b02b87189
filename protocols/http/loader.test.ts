import { describe, expect, it } from 'vitest';
import { type EngineHost, findUws, loadUws, maxHeaderBlockBytes } from './loader.js';

function host(installed: Record<string, unknown>): EngineHost {
  return {
    platform: 'linux',
    arch: 'riscv64',
    nodeMajor: 20,
    require(name) {
      const found = installed[name];
      if (found instanceof Error) throw found;
      if (found) return found;
      throw Object.assign(new Error(`Cannot find module '${name}'\nRequire stack:\n- here`), { code: 'MODULE_NOT_FOUND' });
    },
  };
}

describe('the engine loader', () => {
  const engine = { SSLApp: () => {} };

  it("prefers upstream's own package to the platform package", () => {
    const other = { SSLApp: () => {} };
    expect(findUws(host({ 'uWebSockets.js': engine, '@uwsjs/linux-riscv64-20': other }))).toBe(engine);
    expect(findUws(host({ '@uwsjs/linux-riscv64-20': other }))).toBe(other);
  });

  it('goes on when an installed package does not load, and says why in the end', () => {
    const broken = new Error('This version of uWS.js supports only Node.js versions 22\nmore');
    expect(findUws(host({ 'uWebSockets.js': broken, '@uwsjs/linux-riscv64-20': engine }))).toBe(engine);
    expect(() => findUws(host({ 'uWebSockets.js': broken }))).toThrow(
      /Node 20 on linux-riscv64.*does not load: This version.*22; @uwsjs\/linux-riscv64-20 is not installed.*npm ci.*npm install/,
    );
  });

  it('loads here, with room for large headers', () => {
    expect(loadUws().SSLApp).toBeTypeOf('function');
    expect(process.env['UWS_HTTP_MAX_HEADERS_SIZE']).toBe(String(maxHeaderBlockBytes));
  });
});
