/** Where a callback may go, as far as its text says. Which addresses a name stands for is looked at when it is sent. */
import { invalidOption, type Rule, rule } from './options-check.ts'

/** The longest URL of a callback, in its normal form. */
export const MAX_CALLBACK_URL_BYTES = 2_048

/** Throws where a job cannot have this `callbackUrl`. The value is not shown: it may have a secret in it. */
export const callbackUrl: Rule = rule({ type: 'string', format: 'uri' }, (value, name) => {
  if (typeof value !== 'string' || value.length > MAX_CALLBACK_URL_BYTES * 2 || !URL.canParse(value))
    throw refuse(name, 'a URL, such as https://example.com/hooks')
  const url = new URL(value)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refuse(name, 'an https:// or http:// URL')
  if (url.username !== '' || url.password !== '')
    throw refuse(name, 'a URL without credentials: the signature says who calls')
  if (normalizeCallbackUrl(value).length > MAX_CALLBACK_URL_BYTES)
    throw refuse(name, `at most ${MAX_CALLBACK_URL_BYTES} bytes`)
})

/** The URL as it is stored and called: ASCII, host and path in their normal forms, without a fragment. */
export function normalizeCallbackUrl(text: string): string {
  const url = new URL(text)
  url.hash = ''
  return url.href
}

function refuse(name: string, allowed: string): Error {
  return invalidOption(name, '(not shown)', allowed)
}
