/** The key that commands send: from the environment, since what stands on a command line is seen by every user of the machine. */
import { checkCredential } from '../credential.ts'
import { UsageError } from './command.ts'

export const KEY_VARIABLE = 'SLUICE_KEY'

/** The key of SLUICE_KEY, if it is one that may be sent to the server at `url`; undefined where there is none. */
export function credentialFor(url: URL): string | undefined {
  const key = process.env[KEY_VARIABLE]
  if (key === undefined || key === '') return undefined
  const wrong = checkCredential(key, url)
  if (wrong !== null) throw new UsageError(`${KEY_VARIABLE} ${wrong}`)
  return key
}

/** The headers that show it. */
export function credentialHeaders(url: URL): Record<string, string> {
  const key = credentialFor(url)
  return key === undefined ? {} : { authorization: `Bearer ${key}` }
}
