/**
 * The dashboard as text: one page, one style sheet, one script, no build step. It is a client of the HTTP API and of
 * nothing else. What comes from users (names, keys, payloads, errors) only ever becomes `textContent`, and the policy
 * below refuses inline scripts and styles, so that a payload cannot act.
 */
export const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

export const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sluice</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/dashboard.css">
<script type="module" src="/dashboard.js"></script>
</head>
<body>
<header>
  <h1>Sluice</h1>
  <p id="health" role="status">connecting…</p>
  <button id="sign-out" hidden>Sign out</button>
</header>
<form id="sign-in" hidden>
  <p>This server asks for a key. <code>sluice keys create --scope admin</code> makes one that sees all.</p>
  <label>API key <input id="key" type="password" autocomplete="current-password" spellcheck="false" required></label>
  <button>Sign in</button>
  <p id="sign-in-error" role="alert"></p>
</form>
<main id="main">
  <section aria-labelledby="queues-title">
    <h2 id="queues-title">Queues</h2>
    <div class="scroll"><table id="queues">
      <thead><tr>
        <th scope="col">queue</th><th scope="col">depth / limit</th><th scope="col">in /s</th><th scope="col">out /s</th>
        <th scope="col">active</th><th scope="col">retrying</th><th scope="col">scheduled</th><th scope="col">blocked</th>
        <th scope="col">dead</th><th scope="col">refused</th><th scope="col">oldest</th><th scope="col"><span class="hidden">actions</span></th>
      </tr></thead>
      <tbody></tbody>
    </table></div>
    <p id="no-queues" hidden>No queue yet. The first job makes one:
      <code>curl -d '{"to":"a@b.c"}' -H 'content-type: application/json' <span id="origin"></span>/v1/queues/email/jobs</code></p>
  </section>
  <section aria-labelledby="topics-title">
    <h2 id="topics-title">Topics</h2>
    <div class="scroll"><table id="topics">
      <thead><tr>
        <th scope="col">topic</th><th scope="col">depth / limit</th><th scope="col">in /s</th><th scope="col">offsets</th>
        <th scope="col">refused</th><th scope="col">groups: behind, dead</th>
      </tr></thead>
      <tbody></tbody>
    </table></div>
    <p id="no-topics" hidden>No topic yet.</p>
  </section>
  <section aria-labelledby="job-title">
    <h2 id="job-title">Job</h2>
    <form id="find-job"><label>Id <input id="job-id" placeholder="email:k3x9ab:17" spellcheck="false" autocomplete="off" required></label>
      <button>Show</button></form>
    <div id="job" aria-live="polite" hidden>
      <p id="job-why"></p>
      <pre id="job-text"></pre>
      <p><button id="job-cancel">Cancel the job</button></p>
    </div>
  </section>
</main>
<dialog id="dead" aria-labelledby="dead-title">
  <h2 id="dead-title"></h2>
  <ol id="letters"></ol>
  <p><button id="redrive">Redrive all</button> <button id="close">Close</button></p>
</dialog>
</body>
</html>
`

export const STYLE = `:root { color-scheme: light dark; --line: #8884; --soft: #8882; --bar: #3b82c4; --warn: #c2410c; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 78rem; }
header { display: flex; align-items: baseline; gap: 1rem; border-bottom: 1px solid var(--line); }
h1 { font-size: 1.3rem; margin: .2rem 0; }
h2 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
#health { margin: 0; } #health.bad { color: var(--warn); font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 500; opacity: .75; }
th:first-child, td:first-child { text-align: left; max-width: 22rem; overflow: hidden; text-overflow: ellipsis; }
td.warn { color: var(--warn); font-weight: 600; }
meter { width: 5rem; vertical-align: middle; margin-left: .5rem; }
button { font: inherit; padding: .1rem .6rem; margin-left: .3rem; cursor: pointer; }
code, pre { font: 13px/1.4 ui-monospace, monospace; background: var(--soft); padding: .1rem .3rem; border-radius: 3px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 14rem; overflow: auto; padding: .5rem; }
#sign-in { margin: 1.5rem 0; } #sign-in input { font: inherit; width: min(34rem, 70vw); }
#job-id { font: inherit; width: min(24rem, 60vw); }
#sign-in-error { color: var(--warn); } #sign-out { margin-left: auto; }
[hidden] { display: none !important; }
dialog { width: min(60rem, 92vw); border: 1px solid var(--line); border-radius: 6px; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
`

export const SCRIPT = `const REFRESH_MS = 2000
const last = new Map()
const byId = (id) => document.getElementById(id)
const number = new Intl.NumberFormat()

async function call(path, method = 'GET', headers = {}) {
  const answer = await fetch(path, { method, headers: { accept: 'application/json', ...headers } })
  const body = answer.status === 204 ? null : await answer.json()
  if (answer.status === 401) show(false)
  if (!answer.ok) throw new Error(body.code + ': ' + body.detail)
  return body
}

// Messages a second since the last refresh, from a counter that starts again when the server does.
function rate(name, count) {
  const now = performance.now()
  const before = last.get(name)
  last.set(name, { now, count })
  if (before === undefined || count < before.count || now <= before.now) return ''
  return number.format(Math.round(((count - before.count) / (now - before.now)) * 10000) / 10)
}

function age(atMs) {
  if (atMs === undefined) return ''
  const seconds = Math.max(0, Math.round((Date.now() - atMs) / 1000))
  if (seconds < 120) return seconds + ' s'
  if (seconds < 7200) return Math.round(seconds / 60) + ' min'
  return seconds < 172800 ? Math.round(seconds / 3600) + ' h' : Math.round(seconds / 86400) + ' d'
}

function cell(row, content, warn = false) {
  const td = row.insertCell()
  td.append(content instanceof Node ? content : String(content))
  if (warn) td.className = 'warn'
  return td
}

function depthCell(row, { depth, limit }) {
  const td = cell(row, number.format(depth.messages) + ' / ' + number.format(limit.messages))
  const meter = document.createElement('meter')
  meter.max = 1
  meter.high = 0.9
  meter.value = Math.max(depth.messages / Math.max(limit.messages, 1), depth.bytes / Math.max(limit.bytes, 1))
  meter.title = number.format(depth.bytes) + ' of ' + number.format(limit.bytes) + ' bytes'
  td.append(meter)
}

function button(label, act) {
  const element = document.createElement('button')
  element.textContent = label
  element.addEventListener('click', () => act().then(refresh, report))
  return element
}

function queueRow(row, queue) {
  const path = '/v1/queues/' + encodeURIComponent(queue.name)
  cell(row, queue.name).title = queue.name
  depthCell(row, queue)
  cell(row, rate('queue ' + queue.name, queue.appended))
  cell(row, queue.paused ? 'paused' : number.format(Math.round(queue.drainPerSecond * 10) / 10), queue.paused)
  for (const name of ['leased', 'retrying', 'scheduled']) cell(row, number.format(queue[name]))
  for (const name of ['blocked', 'dead', 'refused']) cell(row, number.format(queue[name]), queue[name] > 0)
  cell(row, age(queue.oldestAtMs))
  const actions = document.createElement('span')
  actions.append(button(queue.paused ? 'Resume' : 'Pause', () => call(path + (queue.paused ? ':resume' : ':pause'), 'POST')))
  if (queue.dead > 0) actions.append(button('Dead…', () => showDead(queue.name, path)))
  cell(row, actions)
}

function topicRow(row, topic) {
  cell(row, topic.name).title = topic.name
  depthCell(row, topic)
  cell(row, rate('topic ' + topic.name, topic.appended))
  cell(row, topic.earliest + ' to ' + topic.head)
  cell(row, number.format(topic.refused), topic.refused > 0)
  cell(row, topic.groups.map((group) => group.name + ': ' + number.format(group.depth) + ', ' + number.format(group.dead)).join('; ') || 'none')
}

async function showDead(name, path) {
  const { letters } = await call(path + '/dead?limit=50')
  byId('dead-title').textContent = 'Dead letters of ' + name + ' (the oldest ' + letters.length + ')'
  byId('letters').replaceChildren(...letters.map((letter) => {
    const item = document.createElement('li')
    const payload = document.createElement('pre')
    const text = 'payload' in letter ? JSON.stringify(letter.payload, null, 2) : 'base64: ' + letter.payloadBase64
    payload.textContent = text.slice(0, 4000)
    item.append(letter.id + ', attempts ' + letter.attempts + ', ' + age(letter.diedAtMs) + ' ago: ' + letter.error, payload)
    return item
  }))
  byId('redrive').onclick = () => call(path + '/dead:redrive', 'POST').then(() => byId('dead').close()).then(refresh, report)
  byId('dead').showModal()
}

// A job as it is now, and why it waits.
async function showJob(event) {
  event?.preventDefault()
  const path = '/v1/jobs/' + encodeURIComponent(byId('job-id').value.trim())
  const draw = (job) => {
    const { why, waits, ...rest } = job
    byId('job-why').textContent = job.status + (why === undefined ? '' : ': ' + why)
    byId('job-text').textContent = JSON.stringify(rest, null, 2).slice(0, 20000)
    byId('job-cancel').hidden = ['completed', 'failed', 'cancelled', 'expired'].includes(job.status)
    byId('job').hidden = false
  }
  const fail = (error) => {
    byId('job-why').textContent = String(error.message ?? error)
    byId('job-text').textContent = ''
    byId('job-cancel').hidden = true
    byId('job').hidden = false
  }
  byId('job-cancel').onclick = () => call(path, 'DELETE').then(draw, fail)
  await call(path).then(draw, fail)
}

function fill(id, items, makeRow) {
  const body = document.createElement('tbody')
  for (const item of items) makeRow(body.insertRow(), item)
  const table = byId(id)
  // A button that has the focus keeps it over a refresh.
  const place = [...table.querySelectorAll('button')].indexOf(document.activeElement)
  table.tBodies[0].replaceWith(body)
  if (place >= 0) table.querySelectorAll('button')[place]?.focus()
  table.hidden = items.length === 0
  byId('no-' + id).hidden = items.length > 0
}

function report(error) {
  if (!isSignedIn) return
  byId('health').textContent = String(error.message ?? error)
  byId('health').className = 'bad'
}

async function refresh() {
  const [queues, topics] = await Promise.all([call('/v1/queues?limit=200'), call('/v1/topics?limit=200')])
  fill('queues', queues.queues, queueRow)
  fill('topics', topics.topics, topicRow)
  const more = queues.next === null && topics.next === null ? '' : ' (the first 200 of each)'
  byId('health').textContent = queues.queues.length + ' queues, ' + topics.topics.length + ' topics' + more
  byId('health').className = ''
}

let isSignedIn = false

// The page, or the form that asks for a key.
function show(signedIn) {
  isSignedIn = signedIn
  byId('main').hidden = !signedIn
  byId('sign-in').hidden = signedIn
  if (signedIn) return
  byId('sign-out').hidden = true
  byId('health').textContent = 'signed out'
  byId('health').className = ''
  for (const id of ['queues', 'topics']) byId(id).tBodies[0].replaceChildren()
  byId('letters').replaceChildren()
  byId('job').hidden = true
  byId('job-text').textContent = ''
  byId('dead').close()
}

// A session instead of the key itself: a script that got in could not take it along.
async function signIn(event) {
  event.preventDefault()
  const key = byId('key').value.trim()
  byId('key').value = ''
  byId('sign-in-error').textContent = ''
  try {
    await call('/session', 'POST', { authorization: 'Bearer ' + key })
    await begin()
  } catch (error) {
    byId('sign-in-error').textContent = error.message.startsWith('UNAUTHENTICATED') ? 'That key is not good here: it is mistyped, has ended or was revoked.' : error.message
  }
}

// Whose session it is, if one is needed.
async function begin() {
  const session = await call('/session')
  byId('sign-out').hidden = session.by !== 'session'
  byId('sign-out').title = session.key === undefined ? '' : 'Key ' + session.key.id + ' ' + session.key.name + ': ' + session.key.scopes.join(', ')
  show(true)
  await refresh().catch(report)
}

async function run() {
  if (!document.hidden && isSignedIn) await refresh().catch(report)
  setTimeout(run, REFRESH_MS)
}

byId('origin').textContent = location.origin
byId('find-job').addEventListener('submit', showJob)
byId('close').addEventListener('click', () => byId('dead').close())
byId('sign-in').addEventListener('submit', signIn)
byId('sign-out').addEventListener('click', () => call('/session', 'DELETE').then(() => show(false), report))
// Where the first call fails for another reason than the key, the next refresh tells it.
begin().catch((error) => { if (!error.message.startsWith('UNAUTHENTICATED')) { show(true); report(error) } })
run()
`
