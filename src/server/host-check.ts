import { EngineError } from '../base/errors.js';

/**
 * Refuses requests that a web page sends to this machine through a host name of its own (DNS rebinding): the browser
 * believes to stay on that page's site, so the same-origin policy does not help, but the Host header names the site.
 * Only needed where a request that came in over loopback needs no key.
 */
export function checkHost(localAddress: string | undefined, host: string | undefined): void {
  if (localAddress === undefined || !isLoopback(localAddress)) return;
  if (host !== undefined && isLoopback(withoutPort(host))) return;
  throw new EngineError('HOST_REFUSED', { host });
}

function withoutPort(host: string): string {
  return host.replace(/:\d*$/, '').replace(/^\[(.*)\]$/, '$1');
}

function isLoopback(name: string): boolean {
  return /^(localhost|.+\.localhost|127(\.\d{1,3}){3}|::1|::ffff:127(\.\d{1,3}){3})$/i.test(name);
}
