/** What a key for a server may be, and where it may go. What is said of one never shows it. */

/** What `Authorization: Bearer` can carry. */
const SENDABLE = /^[A-Za-z0-9._~+/=-]{1,512}$/
const LOOPBACK = /^(?:localhost|\[::1\]|127(?:\.\d{1,3}){3})$/i

/**
 * What is wrong with sending `key` to `url`, as the end of a sentence that begins with its name; null: nothing.
 * `mayBeRead`: over plain http, too.
 */
export function checkCredential(key: string, url: URL, mayBeRead = false): string | null {
  if (!SENDABLE.test(key))
    return 'is not a key: it must be 1 to 512 of the characters that `sluice keys create` prints.'
  if (mayBeRead || url.protocol === 'https:' || LOOPBACK.test(url.hostname)) return null
  return `would go over the network where everybody can read it, as ${url.origin} is not https. Serve with --tls-cert and --tls-key, or behind a proxy that speaks TLS.`
}
