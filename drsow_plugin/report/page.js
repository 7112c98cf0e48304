"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 50, TOP = 12;
  const byId = (id) => document.getElementById(id);
  const rows = data.rows, places = new Map(rows.map((row, at) => [row.id, at]));
  const state = { search: "", verdict: "", domain: "", group: "", sort: "n", up: true, page: 0, bar: null };
  const view = { mode: "difference", numbers: false, row: -1 };
  let listed = [], texts = null;

  // Elements are made of text nodes alone: nothing of the data is ever read as HTML.
  const make = (tag, properties = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const number = (value, digits = 2, sign = false) => {
    if (value === null || value === undefined) return "–";
    const text = Math.abs(value).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    const zero = Number(Math.abs(value).toFixed(digits)) === 0;
    return (value < 0 && !zero ? "−" : sign && !zero ? "+" : "") + text;
  };
  const VERDICTS = { right: "✓ right", wrong: "✗ wrong", tie: "= tie", none: "no pair", open: "not known" };
  const verdictOf = (row) =>
    row.o === 1 ? "right" : row.o === 0 ? "wrong" : row.o === 0.5 ? "tie" : row.m === null ? "none" : "open";
  const badge = (row) => {
    const kind = verdictOf(row);
    if (data.kind === "single") return make("span", { class: "badge none" }, row.a[0] && row.a[0].v !== null ? "scored" : "no reward");
    return make("span", { class: `badge ${kind === "right" || kind === "wrong" ? kind : "none"}` }, VERDICTS[kind]);
  };
  const single = data.kind === "single";
  const valueOf = (row) => (single ? (row.a[0] ? row.a[0].v : null) : row.m);
  const KEYS = {
    n: (row) => row.n, margin: valueOf, closeness: (row) => (valueOf(row) === null ? null : Math.abs(valueOf(row))),
    surprise: (row) => row.u, length: (row) => row.l, verdict: (row) => row.o,
    domain: (row) => row.d || null, group: (row) => row.g || null, prompt: (row) => promptOf(row).toLowerCase(),
  };
  const promptOf = (row) => {
    const turns = row.q.map((turn) => turn.c).filter(Boolean);
    return turns.length ? turns[turns.length - 1] : row.st;
  };

  const search = () => {
    texts = texts || rows.map((row) => [
      ...row.q.map((turn) => turn.c), ...row.a.map(textOf), row.no, row.st, row.id, row.d, row.g,
    ].join("\n").toLowerCase());
    return texts;
  };
  const textOf = (answer) => (answer.k ? answer.k.p.join("") : answer.t === null ? "" : answer.t);

  const filtered = () => {
    const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    const whole = words.length ? search() : null;
    return rows.map((_row, at) => at).filter((at) => {
      const row = rows[at];
      if (words.length && !words.every((word) => whole[at].includes(word))) return false;
      if (state.verdict && verdictOf(row) !== state.verdict) return false;
      if (state.domain && row.d !== state.domain) return false;
      if (state.group && row.g !== state.group) return false;
      if (state.bar) {
        const size = Math.abs(row.m);
        if (row.m === null || size < state.bar.low || size > state.bar.high) return false;
        if (state.bar.verdict && verdictOf(row) !== state.bar.verdict) return false;
      }
      return true;
    });
  };
  const sorted = (chosen) => {
    const key = KEYS[state.sort], direction = state.up ? 1 : -1;
    const keys = new Map(chosen.map((at) => [at, key(rows[at])]));
    return chosen.sort((one, other) => {
      const a = keys.get(one), b = keys.get(other);
      if (a === b || (a === null && b === null)) return rows[one].n - rows[other].n;
      if (a === null || a === undefined) return 1;
      if (b === null || b === undefined) return -1;
      return direction * (typeof a === "string" ? a.localeCompare(b) : a - b);
    });
  };

  const COLUMNS = [
    ["prompt", "prompt", "Prompt", false], ["verdict", "verdict", "Verdict", false],
    ["margin", "margin", single ? "Reward" : "Margin", true], ["surprise", "surprise", "Surprise", true],
    ["length", "length", "Length", true], ["domain", "domain", "Domain", false],
    ["group", "group", data.group, false],
  ].filter(([key]) => (key !== "domain" || data.domains) && (key !== "group" || data.groups) && (key !== "surprise" || data.temperature));
  const EXPLAINED = {
    margin: single ? "reward, nats" : "reward of chosen minus reward of rejected, nats",
    surprise: "minus ln of the probability that the calibrated margin gives to what the data says, nats",
    length: `${single ? "length" : "length of chosen minus length of rejected"}, ${data.unit}`,
  };

  const render = () => {
    listed = sorted(filtered());
    const pages = Math.max(1, Math.ceil(listed.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const shown = listed.slice(state.page * PAGE, (state.page + 1) * PAGE);
    const head = make("tr", {}, ...COLUMNS.map(([key, name, words, right]) => {
      const active = state.sort === key;
      const arrow = active ? (state.up ? " ↑" : " ↓") : "";
      return make("th", { scope: "col", class: `c-${name}${right ? " n" : ""}`, "aria-sort": active ? (state.up ? "ascending" : "descending") : null },
        make("button", { type: "button", title: EXPLAINED[key], "data-sort": key, onclick: () => sortBy(key) }, words + arrow));
    }));
    const body = shown.map((at) => {
      const row = rows[at];
      const cells = {
        prompt: () => make("a", { href: `#row=${encodeURIComponent(row.id)}`, "data-at": at, dir: "auto" }, promptOf(row).slice(0, 240) || "(no text)"),
        verdict: () => badge(row), margin: () => number(valueOf(row), 2, true),
        surprise: () => number(row.u), length: () => number(row.l, 0, !single), domain: () => row.d, group: () => row.g,
      };
      return make("tr", {}, ...COLUMNS.map(([key, name, _words, right]) =>
        make("td", { class: `c-${name}${right ? " n" : ""}` }, cells[key]())));
    });
    byId("rows").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
    const all = rows.length === listed.length;
    byId("count").textContent = all ? `${number(rows.length, 0)} rows` : `${number(listed.length, 0)} of ${number(rows.length, 0)} rows`;
    byId("where").textContent = `page ${state.page + 1} of ${pages}`;
    byId("pager").hidden = pages < 2;
    byId("before").disabled = state.page === 0;
    byId("after").disabled = state.page + 1 >= pages;
    byId("sort").value = state.sort;
    byId("direction").textContent = state.up ? "↑" : "↓";
    byId("direction").setAttribute("aria-label", `Sort direction: ${state.up ? "upwards" : "downwards"}`);
    const bar = state.bar;
    byId("clear").hidden = !bar;
    if (bar) byId("clear").textContent = `✕ ${bar.verdict || "pairs"}, ${number(bar.low, 1)} to ${bar.high < 1e300 ? number(bar.high, 1) : "∞"} nats`;
  };
  const change = (values) => { Object.assign(state, { page: 0 }, values); render(); };
  const UPWARDS = new Set(["n", "prompt", "domain", "group", "closeness", "verdict"]);
  const sortBy = (key) => {
    change(state.sort === key ? { up: !state.up } : { sort: key, up: UPWARDS.has(key) });
    const button = byId("rows").querySelector(`[data-sort="${key}"]`);
    if (button) button.focus();
  };

  // A row. A part is what both models' tokens can be summed over: mostly one token.
  const weights = (answer) => {
    const k = answer.k;
    const mean = data.reduction === "mean";
    const total = (counts) => counts.reduce((sum, count) => sum + count, 0);
    const strong = mean ? total(k.sn) : 1, weak = mean ? total(k.wn) : 1;
    return k.p.map((_part, at) => k.s[at] / strong - k.w[at] / weak);
  };
  // What one model alone has a token for, such as the end of a turn, has no log-prob under the other.
  const of = (k, side, at, digits = 2) => number(k[`${side}n`][at] ? k[side][at] : null, digits);
  const labelOf = (k, at) => (k.p[at] !== "" ? k.p[at] : at === 0 && k.b ? "‹before the response›" : "‹end of turn›");
  const quoted = (text) => (text.startsWith("‹") ? text : `“${text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "␣")}”`);
  const scaleOf = (answers) => {
    const sizes = answers.filter((answer) => answer.k).flatMap((answer) => weights(answer).map(Math.abs)).sort((a, b) => a - b);
    return sizes.length ? Math.max(sizes[Math.floor(0.95 * (sizes.length - 1))], 1e-6) : 1;
  };
  const DEEPEST = 10;

  const tokensOf = (answer, scale) => {
    const k = answer.k, parts = weights(answer), readout = make("p", { class: "readout", "aria-live": "polite" });
    const hint = "Point at a token, or move through them with ← and →.";
    const spans = k.p.map((part, at) => {
      const value = view.mode === "difference" ? parts[at] : view.mode === "strong" ? k.s[at] : k.w[at];
      const amount = view.mode === "difference" ? Math.min(1, Math.abs(value) / scale) : Math.min(1, -value / DEEPEST);
      const kind = view.mode === "difference" ? (value >= 0 ? "more" : "less") : "tone";
      const counts = k.sn[at] + k.wn[at] > 2 ? ` (${k.sn[at]} and ${k.wn[at]} tokens)` : "";
      const said = `${quoted(labelOf(k, at))}: strong ${of(k, "s", at)}, weak ${of(k, "w", at)}, difference ${number(parts[at], data.reduction === "mean" ? 4 : 2, true)} nats${counts}`;
      const around = part === "";
      const span = make("span", { class: `t ${kind}${around ? " around" : ""}`, title: said, "data-n": number(value, 1, view.mode === "difference") }, around ? labelOf(k, at) : part);
      span.style.setProperty("--a", amount.toFixed(3));
      return span;
    });
    let at = -1;
    const go = (next) => {
      if (at >= 0) spans[at].classList.remove("at");
      at = Math.max(0, Math.min(spans.length - 1, next));
      spans[at].classList.add("at");
      spans[at].scrollIntoView({ block: "nearest" });
      readout.textContent = spans[at].title;
    };
    readout.textContent = hint;
    const box = make("div", {
      class: `text tokens${view.numbers ? " numbers" : ""}`, tabindex: 0, role: "group", dir: "auto",
      "aria-label": `Tokens of ${answer.r}`,
      onkeydown: (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1, Home: -spans.length, End: spans.length }[event.key];
        if (!step || !spans.length) return;
        event.preventDefault(); event.stopPropagation(); go(at + step);
      },
      onpointerover: (event) => { const place = spans.indexOf(event.target); if (place >= 0) go(place); },
      onpointerleave: () => { if (at >= 0) spans[at].classList.remove("at"); at = -1; readout.textContent = hint; },
    }, ...spans);
    const table = make("table", { class: "plain-table all" },
      make("thead", {}, make("tr", {}, ...["token", "strong", "weak", "difference"].map((name) => make("th", { scope: "col" }, name)))),
      make("tbody"));
    const whole = make("details", { ontoggle: () => {
      const into = table.tBodies[0];
      if (!into.rows.length) into.append(...k.p.map((_part, place) => make("tr", {},
        make("td", {}, quoted(labelOf(k, place))), make("td", {}, of(k, "s", place, 3)), make("td", {}, of(k, "w", place, 3)), make("td", {}, number(parts[place], 3, true)))));
    } }, make("summary", {}, "All tokens as a table"), make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Tokens of ${answer.r} as a table` }, table));
    return [box, readout, whole];
  };

  const sideOf = (row, at, scale) => {
    const answer = row.a[at];
    const kind = at === row.c ? "chosen" : at === row.j ? "rejected" : "";
    const sums = [
      answer.s === null ? null : `strong ${number(answer.s)}`, answer.w === null ? null : `weak ${number(answer.w)}`,
      answer.l === null ? null : `length ${number(answer.l, 0)} ${data.unit}`, answer.g === null ? null : `rating ${number(answer.g)}`,
    ].filter(Boolean).join(" · ");
    const inner = answer.k ? tokensOf(answer, scale)
      : [make("div", { class: "text", dir: "auto" }, answer.t === null ? "(no response)" : answer.t)];
    const again = answer.x ? make("p", { class: "note" }, answer.x) : null;
    return make("section", { class: `side ${kind}`, "aria-label": answer.r },
      make("h3", {}, answer.r, make("span", {}, answer.v === null ? "no reward" : `reward ${number(answer.v, 2, true)}`)),
      make("p", { class: "sums" }, sums), again, ...inner);
  };
  const decided = (row) => {
    const sides = single ? [[0, 1]] : [[row.c, 1], [row.j, -1]];
    const found = sides.filter(([at]) => at !== null && row.a[at] && row.a[at].k).flatMap(([at, sign]) => {
      const parts = weights(row.a[at]);
      return parts.map((part, place) => ({ role: row.a[at].r, text: labelOf(row.a[at].k, place), value: sign * part, s: of(row.a[at].k, "s", place), w: of(row.a[at].k, "w", place) }));
    }).sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, TOP);
    if (!found.length) return null;
    const head = ["token", "response", "strong", "weak", single ? "adds to the reward" : "adds to the margin"];
    return make("section", {}, make("h3", {}, single ? "The tokens that weigh most" : "The tokens that made the decision"),
      make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The tokens that weigh most" },
        make("table", { class: "plain-table deciding" }, make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
          make("tbody", {}, ...found.map((entry) => make("tr", {}, make("td", {}, quoted(entry.text)), make("td", {}, entry.role),
            make("td", {}, entry.s), make("td", {}, entry.w), make("td", {}, number(entry.value, data.reduction === "mean" ? 4 : 2, true))))))));
  };
  const dialog = byId("row");
  const switches = (row, hasTokens, scale) => {
    if (!hasTokens) return make("p", { class: "note" }, data.why);
    const radio = (mode, words) => make("label", {}, make("input", { type: "radio", name: "mode", value: mode, checked: view.mode === mode, onchange: () => { view.mode = mode; fill(`[value="${mode}"]`); } }), words);
    const said = view.mode === "difference"
      ? [make("span", { class: "t more" }, "strong finds it likelier"), make("span", { class: "t less" }, "weak does"), `full colour at ${number(scale, data.reduction === "mean" ? 4 : 1)} nats`]
      : [make("span", { class: "t tone" }, "unlikely"), `full colour at −${DEEPEST} nats`];
    const scales = make("span", { class: "scale" }, ...said);
    scales.querySelectorAll(".t").forEach((span) => span.style.setProperty("--a", "1"));
    return make("fieldset", { class: "switches" }, make("legend", {}, "Colour by"),
      radio("difference", "strong − weak"), radio("strong", "strong"), radio("weak", "weak"),
      make("label", {}, make("input", { type: "checkbox", id: "numbers", checked: view.numbers, onchange: (event) => { view.numbers = event.target.checked; fill("#numbers"); } }), "numbers"), scales);
  };
  const fill = (focus) => {
    const row = rows[view.row];
    const order = [row.c, row.j].filter((at) => at !== null).concat(row.a.map((_answer, at) => at)).filter((at, place, all) => all.indexOf(at) === place && row.a[at]);
    const scale = scaleOf(row.a), hasTokens = row.a.some((answer) => answer.k);
    const where = listed.indexOf(view.row);
    const beside = (step) => (where < 0 ? undefined : listed[where + step]);
    const facts = [row.d && `domain ${row.d}`, row.g && `${data.group.toLowerCase()} ${row.g}`, row.u !== null && `surprise ${number(row.u)} nats`, row.l !== null && !single && `length difference ${number(row.l, 0, true)}`].filter(Boolean).join(" · ");
    const top = dialog.scrollTop;
    dialog.replaceChildren(
      make("div", { class: "bar" },
        make("h2", { id: "row-title" }, `Row ${row.id}`, " ", badge(row), valueOf(row) === null ? "" : ` ${number(valueOf(row), 2, true)} nats`),
        make("button", { type: "button", id: "left", disabled: beside(-1) === undefined, "aria-label": "Row before", onclick: () => follow(beside(-1)) }, "←"),
        make("button", { type: "button", id: "right", disabled: beside(1) === undefined, "aria-label": "Next row", onclick: () => follow(beside(1)) }, "→"),
        make("button", { type: "button", id: "close", onclick: () => dialog.close() }, "Close")),
      make("div", { class: "inside" },
        facts ? make("p", { class: "sub" }, facts) : null,
        row.st !== "ok" ? make("p", { class: "note" }, `Status: ${row.st}`) : null,
        row.no ? make("p", { class: "note" }, `Notes: ${row.no}`) : null,
        make("section", { class: "prompt", tabindex: 0, "aria-label": "Prompt" }, ...row.q.map((turn) => make("div", { class: "turn" },
          make("div", { class: "role" }, turn.r), make("div", { class: "text", dir: "auto" }, turn.c)))),
        switches(row, hasTokens, scale),
        make("div", { class: "sides" }, ...order.map((at) => sideOf(row, at, scale))),
        hasTokens ? decided(row) : null));
    dialog.scrollTop = focus ? top : 0;
    const focused = focus && dialog.querySelector(focus);
    if (focused) focused.focus();
  };
  const follow = (at) => { if (at !== undefined) location.hash = `row=${encodeURIComponent(rows[at].id)}`; };
  const openFromHash = () => {
    const match = /^#row=(.+)$/.exec(location.hash);
    let at;
    try { at = match ? places.get(decodeURIComponent(match[1])) : undefined; } catch (_error) { at = undefined; }
    if (at === undefined) { if (dialog.open) dialog.close(); return; }
    view.row = at;
    fill();
    if (!dialog.open) dialog.showModal();
    byId("close").focus();
  };
  dialog.addEventListener("close", () => {
    if (location.hash) history.pushState(null, "", location.pathname + location.search);
    const link = byId("rows").querySelector(`[data-at="${view.row}"]`);
    if (link) link.focus();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input, .scroll, .prompt") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") byId("left").click();
    if (event.key === "ArrowRight") byId("right").click();
  });

  const move = (step) => {
    const links = [...byId("rows").querySelectorAll("a")], at = links.indexOf(document.activeElement);
    const next = links[at < 0 ? 0 : at + step];
    if (next) next.focus();
  };
  document.addEventListener("keydown", (event) => {
    if (dialog.open || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.target.matches("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
    const inTable = byId("rows").contains(document.activeElement);
    if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
    if (event.key === "j" || (event.key === "ArrowDown" && inTable)) { event.preventDefault(); move(1); }
    if (event.key === "k" || (event.key === "ArrowUp" && inTable)) { event.preventDefault(); move(-1); }
  });
  let waiting = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    const value = event.target.value;
    waiting = setTimeout(() => change({ search: value }), 80);
  });
  for (const id of ["verdict", "domain", "group"]) {
    if (byId(id)) byId(id).addEventListener("change", (event) => change({ [id]: event.target.value }));
  }
  byId("sort").addEventListener("change", (event) => change({ sort: event.target.value, up: UPWARDS.has(event.target.value) }));
  byId("direction").addEventListener("click", () => change({ up: !state.up }));
  byId("clear").addEventListener("click", () => change({ bar: null }));
  byId("before").addEventListener("click", () => { state.page -= 1; render(); });
  byId("after").addEventListener("click", () => { state.page += 1; render(); });
  document.addEventListener("click", (event) => {
    const bar = event.target.closest("[data-low]"), point = event.target.closest("[data-row]");
    if (bar) {
      change({ bar: { low: Number(bar.dataset.low), high: Number(bar.dataset.high), verdict: { good: "right", bad: "wrong" }[bar.dataset.mark] } });
      byId("rows-title").scrollIntoView();
    }
    if (point) location.hash = `row=${encodeURIComponent(point.dataset.row)}`;
  });
  window.addEventListener("hashchange", openFromHash);
  window.addEventListener("popstate", openFromHash);
  byId("controls").hidden = byId("keys").hidden = false;
  render();
  openFromHash();
})();
