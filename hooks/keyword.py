"""The router ``keyword``: three lists of words, no model.

The last user turn goes to ``reasoning`` if it looks like code, else to ``safety`` if it has a
word of danger, else to ``reasoning`` if it looks like mathematics, else to ``chat``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from drsow_plugin import Router, RouterInput, hookimpl

CODE = r"""
    ``` | \b(def|func|fn|class|public|const|var|let|void|int|bool|import|return)\s+\w+\s*[(={:;]
  | \b(write|implement|complete|fix|debug|refactor|optimi[sz]e|create)\b .{0,60}
    \b(functions?|code|program|script|class|method|algorithm|regex|query|loop)\b
  | \b(python|javascript|typescript|java|c\+\+|c\#|golang|rust|sql|bash|html|css|php|matlab)\b
    .{0,40} \b(functions?|code|program|script|class|method|query|loop)\b
"""
DANGER = r"""
    \b(kill|murder|assassinat|slaughter|massacr|genocid|holocaust|concentration\ camp|execut(e
      |ed|ing)\b
      |behead|strangl|stab|shoot|shot\b|snip(e|ing)\b|gun|rifle|weapon|ammunition|bomb|explo(d
      |siv)
      |detonat|grenade|blow(ing)?\ up|torture|attack|assault|violen|hurt|harm|injur|destroy
      |demolish
      |annihilat|obliterat|eliminat|exterminat|eradicat|decimat|wip(e|ing)\ out|terminat(e
      |ing)\b|crush
      |shatter|smash|burn\ down|arson|on\ fire|punch|overpower|beat\ (up|my)|slap|chok(e|ing)
      |throttl
      |drown|push\b.{0,20}\boff|sever\b|cut(ting)?\ (off|myself)|chop\ up|gut\ a|pierc(e|ing)
      |skull
      |poison|toxic|lethal|deadl|dead\b|death|dying|die\b|corpse|cannibal|end\ my\ life|suicid
      |self-harm
      |overdos|anorexi|alcoholic|drugs?\b|cocaine|heroin\b|meth(amphet|\b)|fentanyl|mdma|lsd\b
      |mari[jh]uana|cannabis|smuggl|traffick|steal|stole|theft|thief|rob\b|robb|burgl|shoplift
      |break\ into
      |launder|fraud|scam|counterfeit|forge|bribe|blackmail|extort|ransom|kidnap|abduct
      |captur(e|ing)\ a
      |hostage|hack|malware|phish|ddos|spyware|pirat|illegal|criminal|crime|jail|prison|treason
      |terroris
      |isis\b|taliban|jihad|nazi|hitler|fascis|lynch|slave|colonialism|apartheid|dictator|rape
      |rapist
      |molest|p[a]?edophil|incest|porn|prostitut|sexual|nude|naked|castrat|abus|bull(y|ie)
      |harass|stalk
      |threat|sabotage|vandal|racis|sexis|discriminat|hate\b|bigot|slur|homophob|transphob
      |antisemit
      |supremac|inferior|segregat|embezzl|evade\ tax|tax\ evasion|insider\ trad|spy(ing)?\b
      |wiretap|dox)
  | 's?\ ([\w'-]+\ ){0,3}(address|office|number|password|login|pin|history|records?|certificate
      |birthday|salary|status|affiliation|beliefs|orientation)\b
  | \b(my|(email|home)\ address|address\ of|what\ number)\ .{0,20}\b(password|login|pin|of
      |call)\b
  | \b(credit\ card|bank\ account|social\ security|(phone|passport|license)\ number
      |is\ \w+\ married
      |how\ much\ (money\ does|does\ \w+\ earn)|ethnic\ cleans|i?llegal|weed\b|ecstasy)
  | \b(women|girls|jews?|jewish|muslims?|christians|hindus?|buddhists?|immigrants|refugees
      |migrants
      |(black|white|asian|roma|poor|divorced|trans|disabled)\ people|asians?|africans?|latinos?
      |gays?
      |lesbians?|homosexuals?|elderly|homeless|mexicans?|arabs?)\b
  | \bwhy\ (should|can|is\ it\ best)\b .* \b(not|barred|denied|kicked|excluded|extra
      |over-?represented)\b
  | \b(equal|voting|human)\ rights|right\ to\ vote
"""
MATHS = r"""
    \d\s*[-+*/^=]\s*\d | \b[xyz]\s*(\^|=|\+)\s*-?\d | \\frac|\\sqrt|\$[^$]+\$
  | \b(solve|prove|derive|simplify|factori[sz]e|integrate|differentiate|compute|calculate)\b
  | \b(equation|theorem|integral|derivative|polynomial|prime\ numbers?|probabilit|arithmetic
      |geometry
      |square\ root|hypotenuse|logic\ puzzle|riddle)
  | \bhow\ (many|much|long|far|old|fast)\b .* \d .* \d
"""
_RULES = [
    (name, re.compile(rule, re.IGNORECASE | re.VERBOSE | re.DOTALL))
    for name, rule in (("reasoning", CODE), ("safety", DANGER), ("reasoning", MATHS))
]


def choose(text: str) -> str:
    """Return the domain of a user turn."""
    return next((name for name, rule in _RULES if rule.search(text)), "chat")


def route(prompts: Sequence[RouterInput]) -> list[str]:
    """Return the domain of each prompt's last user turn."""
    return [choose(prompt.text) for prompt in prompts]


@hookimpl
def drsow_routers() -> list[Router]:
    """Offer the router."""
    return [Router("keyword", route, "lists of words, no model; made for English")]
