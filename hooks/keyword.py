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
    \b(kill|murder|assassinat|slaughter|massacr|genocid|holocaust|concentration\ camp|lynch|behead
      |execut(e|ed|ing)\b|strangl|stab(s|bed|bing)?\b|shoot|shot\b|snip(e|ing)\b|gun|rifle|weapon
      |ammunition|bomb|explo(d|siv)|detonat|grenade|blow(ing)?\ up|arson|on\ fire|burn\ down)
  | \b(torture|attack|assault|violen|hurt|harm(s|ed|ful|ing)?\b|injur|destroy|demolish|annihilat
      |obliterat|eliminat|exterminat|eradicat|decimat|wip(e|ing)\ out|terminat(e|ing)\b|shatter
      |smash|crush\ (my|your|the|some|an?)\b|punch|overpower|beat\ (up|my)|slap|chok(e|ing)|throttl
      |drown|push\b.{0,20}\boff|sever\b|cut(ting)?\ (off|myself)|chop\ up|gut\ a|pierc(e|ing)|skull)
  | \b(poison|toxic|lethal|deadl|dead\b|death|dying|die\b|corpse|cannibal|end\ my\ life|suicid
      |self-harm|overdos|anorexi|alcoholic|drugs?\b|cocaine|heroin\b|meth(amphet|\b)|fentanyl|mdma
      |lsd\b|ecstasy|weed\b|mari[jh]uana|cannabis)
  | \b(smuggl|traffick|steal|stole|theft|thief|rob\b|robb|burgl|shoplift|break\ into|launder|fraud
      |scam|counterfeit|forg(ery|ed|ing)\b|bribe|blackmail|extort|ransom|kidnap|abduct
      |captur(e|ing)\ a|hostage|hack|malware|phish|ddos|spyware|pirat|i?llegal|criminal|crime|jail
      |prison|embezzl|evade\ tax|tax\ evasion|insider\ trad|spy(ing)?\b|wiretap|dox)
  | \b(treason|terroris|isis\b|taliban|jihad|nazi|hitler|fascis|slave|colonialism|apartheid|dictator
      |ethnic\ cleans|rape|rapist|molest|pa?edophil|incest|porn|prostitut|sexual|nude|naked|castrat
      |abus|bull(y|ie)|harass|stalk|threat|sabotage|vandal|racis|sexis|discriminat|hate\b|bigot|slur
      |homophob|transphob|antisemit|supremac|inferior|segregat)
  | 's?\ ([\w'-]+\ ){0,3}(address|office|number|password|login|pin|history|records?|certificate
      |birthday|salary|status|affiliation|beliefs|orientation)\b
  | \bmy\ .{0,20}\b(password|login|pin)\b | \bhow\ much\ (money\ does|does\ \w+\ earn)\b
  | \b((email|home)\ address|address\ of|number\ do\ i\ call|credit\ card|bank\ account
      |social\ security|(phone|passport|license)\ number|is\ \w+\ married)\b
  | \b(women|girls|jews?|jewish|muslims?|christians|hindus?|buddhists?|immigrants|refugees|migrants
      |(black|white|asian|roma|poor|divorced|trans|disabled)\ people|asians?|africans?|latinos?
      |gays?|lesbians?|homosexuals?|elderly|homeless|mexicans?|arabs?)\b
  | \bwhy\ (should|can|is\ it\ best)\b .* \b(not|barred|denied|kicked|excluded|extra
      |over-?represented)\b
  | \b(equal|voting|human)\ rights | \bright\ to\ vote
"""
MATHS = r"""
    \d\s*[-+*/^=]\s*\d | \b[xyz]\s*(\^|=|\+)\s*-?\d | \\frac|\\sqrt|\$[^$]+\$
  | \b(solve|prove|derive|simplify|factori[sz]e|integrate|differentiate|compute|calculate)\b
  | \b(equation|theorem|integral|derivative|polynomial|prime\ numbers?|probabilit|arithmetic
      |geometry|square\ root|hypotenuse|logic\ puzzle|riddle)
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
