/** The key that commands send: from the environment, since what stands on a command line is seen by every user of the machine. */
import { checkCredential } from '../credential.ts'
import { UsageError } from './command.ts'

export const KEY_VARIABLE = 'SLUICE_KEY'

/** The headers that show the key of SLUICE_KEY to the server at `url`; none where there is no key. */
export function credentialHeaders(url: URL): Record<string, string> {
  const key = process.env[KEY_VARIABLE]
  if (key === undefined || key === '') return {}
  const wrong = checkCredential(key, url)
  if (wrong !== null) throw new UsageError(`${KEY_VARIABLE} ${wrong}`)
  return { authorization: `Bearer ${key}` }
}
