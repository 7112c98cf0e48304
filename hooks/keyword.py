"""The router ``keyword``: lists of words, no model.

The last user turn goes to ``reasoning`` if it asks for code, else to ``safety`` if it has a word of
danger, else to ``reasoning`` if it looks like mathematics or a puzzle, else to ``chat``. Of a long
turn only the beginning and the end are read for the last two: what is asked stands there, and any
article has such words somewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from drsow_plugin import Router, RouterInput, hookimpl

HEAD, TAIL = 400, 200
"""Characters that are read of a longer turn, at its beginning and at its end."""

CODE = r"""
    ``` | \b(def|func|fn|class|public|const|var|let|void|int|bool|import|return)\s+\w+\s*[(={:;]
  | \b(write|implement|complete|fix|debug|refactor|optimi[sz]e|create|develop|design)\b .{0,60}
    \b(functions?|code|(computer\ )?program(me)?\ (that|to|which|in|for)|method|algorithm|regex
      |sql\ query|api|script\ (that|to|which|in)|html|css|web\ ?(page|site|server))\b
  | \b(python|javascript|typescript|java|c\+\+|c\#|golang|rust|sql|bash|html|css|php|matlab|shell)\b
    .{0,40} \b(functions?|code|program|script|class|method|query|loop|error)\b
  | \b(bugs?|error)\ in\ (this|the|my)\b .{0,20} \bcode\b
  | \b(this|given|following|my)\ (code|program|function|script)\b
"""
VIOLENCE = r"""
    \b(kill|murder|assass?in|slaughter|massacr|genocid|holocaust|concentration\ camp|lynch|behead
      |execut(e|ed|ing)\b|strangl|suffocat|smother|stab(s|bed|bing)?\b|shoot(?!\ (for|the\ moon))
      |shot\b|snip(e|ing)\b|guns?\b|rifle|pistol|firearm|weapon|ammunition|bomb|explosi|detonat
      |grenade|molotov|blow(ing)?\ up|arson|set\ .{0,30}\bon\ fire|burn\ (down|a\ cross))
  | \b(torture|(?<!heart\ )(?<!panic\ )(?<!asthma\ )attack|assault|violen|destroy|demolish|annihilat
      |obliterat|exterminat|eradicat|decimat|wip(e|ing)\ out
      |eliminat(e|ing)\ (people|humanity|someone|the\ president|a\ person)|smash|crush\ (my|your
      |the|some|an?)\b
      |punch|slap|chok(e|ing)|throttl|drown|push(ed)?\b.{0,20}\b(off|out)|chop\ up|fights?\b
      |beat(ing)?\ (up|my|their|his|her|the|them|him)|hunt(ing)?\ (for\ )?(humans|people)
      |(hurt|harm|injur\w*|poison|punish|hit|throw)\ (an?\ |my\ |your\ |his\ |her\ |the\ )?
       (\w+\ )?(people|person|someone|some(body|one)|kids?|child|children|wife|husband|neighbou?rs?
       |him|her|them|others|animals?|cats?|dogs?|myself|brother|sister|boss|coworker))
  | \b(poison(?!ous|\ oak|\ ivy|ing)|lethal|deadly\ |corpse|dead\ (body|bodies|people)|skull\b
      |artery
      |(dispose\ of|hide|bury|hiding|get\ rid\ of)\ (a|the)\ (dead\ )?body|human\ blood|burn\ (a
      |the)\ body|noose|brass\ knuckles
      |(my|his|her|'s)\ death\b|die\ like|cannibal|human\ flesh|end\ my\ life|suicid|self-?\ ?harm
      |cut(ting)?\ myself|anorexi|bulimi
      |(want|going|wants)\ to\ die|overdos)
  | \bmake\ (some(one|body)|people|him|her|them)\ (cry|mad|sick|angry|suffer|pay)
  | \bsome(one|body)'?s\b (?!\ (else|thoughts|guide))
"""
CRIME = r"""
    \b((?<!non\ )(?<!non-)alcohol|drunk|booze|liquor|beer\b|moonshine|drugs?\b|cocaine|heroin\b
      |crack\b
      |crack\ ?pipe|rohypnol|psilocybin|magic\ mushroom|ketamine|crank\b|meth(amphet|\b)|fentanyl
      |mdma|lsd\b|ecstasy|weed\b|mari[jh]uana|cannabis|opi(um|oid)
      |get(ting)?\ high|stoned|vap(e|ing)\b|underage)
  | \b(smuggl|traffick|steal|stole|theft|thief|thieves|rob\b|robb|burgl|shoplift
      |break(ing)?\ into(?!\ the\ \w+\ industry)
      |launder(?!ette)|fraud|scam|counterfeit|forg(e|ery|ed|ing)\b|brib|blackmail|extort|ransom
      |kidnap|abduct|hostage|hack(?!athon)|malware|phish|ddos|spyware|keylog|pirat(e|ed|ing)\b
      |torrent|i?llegal|criminal|crimes?\b|felon|jail|prison|police|cops?\b|(?<!cardiac\ )arrest
      |mafia|mob\b|gangs?\b
      |hitman|cartel|embezzl|evad(e|ing)|tax\ evasion|pay(ing)?\ tax|insider\ trad|siphon|hot-?wire
      |pick(ing)?\ (a\ )?locks?\b|fake\ (ids?\b|passport|money|news|(my|a|an)\b)
      |like\ an\ accident|without\ (a\ )?(licen[cs]e|paying)
      |black\ market|dark\ web|loophole|insurance\ money)
  | \b(wiretap|dox|spy(ing)?\b|stalk|(track|follow|watch|record)(ing)?\ (some|my|a\ (girl|woman
      |wo?man))
      |sneak(?!er)|cheat|revenge|vengeance|misinformation|security\ camera|pranks?\b
      |get\ (back\ at|even)|get(ting)?\ (away\ with|caught)|lie\ to
      |lies\ to\ tell|lie\ about|give\ me\ (all\ )?their|tracker\b|trick\ (some|my|him|her|people
      |a)|manipulat|blackmail|harass|bull(y|ie)
      |threat|intimidat|humiliat|embarrass\ (some|my|a)|ruin\ |sabotage|vandal|graffiti|slash
      |damag(e|ing)\ (some|my|his|her)|disguise|hide\ (from|it|the|a|my)|keyed|rumou?rs?\b
      |without\ (\w+\ ){1,4}(know|notic|reali[sz]|find(ing)?\ out|permission|consent|caught))
"""
HATE = r"""
    \b(treason|terroris|isis\b|taliban|jihad|nazi|hitler|fascis|kkk\b|slave|colonialism|apartheid
      |dictator|ethnic\ cleans|extremis|q-?\ ?anon|antifa|conspirac|supremac|supremis|white\ (power|
      nationalis|pride|race)|racial|racis|sexis|discriminat
      |hate\b|hateful|bigot|slurs?\b|homophob|transphob|antisemit|inferior|superior\ to|segregat
      |stereotyp|offensive|derogatory|insult|retard|politically\ correct|abortion
      |political\ correct)
  | \b(women|men|girls|boys|wom[ae]n|man)\b .{0,40} \b(inferior|worse|stupid|weak|belong|emotional
      |should(n't|\ not|\ be)|not\ allowed|less)
  | \bwhy\ (are|do|should|can|can't|don't|is)\ .{0,30}\b(women|girls|men|old\ people|poor\ people)\b
  | \bwhy\ should\b .{0,60} \b(not\ (be|have)|banned|barred|denied|excluded|kicked|removed)\b
  | \b(jews?|jewish|muslims?|christians|hindus?|buddhists?|catholics|atheists|immigrants?|refugees
      |migrants|foreigners|minorities|mentally\ ill|blacks|whites|asians|africans|latinos?
      |mexicans|arabs?|gypsies|native\ americans?
      |gays?|lesbians?|homosexuals?|transgender\w*|trans\ |republicans|democrats|liberals|vegans
      |homeless\ people|(black|white|asian|roma|poor|fat|old|disabled|brown|gay|ugly|mixed|divorced)
       \ (people|persons?|guys?|man|men|wom[ae]n|lady|kids?|famil(y|ies)|coworker))\b
  | \b(fuck\w*|shit\w*|bitch\w*|ass\b|assholes?|bastards?|cunts?|dick\b|piss\w*|crap\w*|damn|whores?
      |sluts?|hookers?|nigg\w*|fag\w*|poop?\b|pee(d|ing)?\b|farts?\b|boobs?\b|tits\b|blowjob
      |get(ting)?\ laid)
  | \b(curse|cuss|swear|dirty|bad|profane|nasty|f|n|c)[\s-]?(words?|names|jokes?)\b
  | \bjokes?\ about\ (\w+\ )?(people|wom[ae]n|men)\b
      | \b(cuss|curs|swear)ing\b
  | \b(stupid|dumb(est)?|idiots?|morons?|ugly|ugliest|losers?|lazy|disgusting|stinks?|stank|smelly
      |(the\ )?(worst|meanest)\ (person|thing)|(you|they)\ (suck|are\ (terrible|bad)))\b
  | \b(equal|voting|human)\ rights | \bright\ to\ vote
"""
SEX = r"""
    \b(rape|rapist|molest|p(a)?edophil|incest|porn|prostitut|sex\b|sexual|sexy|nudes?\b|naked|fetish
      |threesome|orgasm|masturbat|voyeur|arous|penis|vagina|castrat|affairs?\b\ with|grope|grab\ her
      |strip(per|\ club)|abus(e|ed|er|ing|ive)\b)
"""
PRIVATE = r"""
    's?\ ([\w'-]+\ ){0,3}(address|password|login|pin|certificate|salary|date\ of\ birth|office
      |income
      |(phone|license|passport|card|account)\ (number|details)|marital\ status
      |(browsing|search|call|employment|criminal|medical|health|tax)\ (history|records?)
      |whereabouts|location|affiliation|beliefs|orientation)\b(?!\ of\ )
  | \b(my|his|her|their|someone)\b.{0,20}\b(password|login|pin)\b | \bhow\ much\ (money\ )?(does
      |do)\ .{1,30}\ (earn|make)\b
  | \b((residential|home|personal|private|email)\ (address|e-?mail|number)|personal\ information
      |number\ do\ i\ call|(credit\ card|bank\ account)\ (number|info|detail)
      |social\ security\ number|(phone|passport|license)\ number|is\ \w+\ married)\b
  | \bwhere\ (does|do|is)\ .{1,40}\ (live|lives|living)\b
"""
MATHS = r"""
    \d\s*[+*^=]\s*\d | \d\s[-/]\s\d | \b[xyzn]\s*(\^|=|\+)\s*-?\d | \\frac|\\sqrt
      |\$[^$]*[\\^=][^$]*\$
  | \b(solve|prove|derive|simplify|factori[sz]e|integrate|differentiate|evaluate|find)\b
    .{0,40} (equation|\b[xyzn]\b|\bf\(|\\|integer|theorem|expression|puzzle|sudoku|riddle|problem)
  | \b(calculate|compute)\b .* \d
  | \b(equation|theorem|integral|derivative|polynomial|prime\ numbers?|probability\ (of|that)
      |arithmetic|geometry|square\ root|hypotenuse|logic(al)?\ (puzzle|problem|question)|riddle
      |syllogism|true\ or\ false|next\ number
      |number\ sequence|standard\ deviation|remainder|divisible|perimeter|triangle)\b
"""
QUANTITY = r"""
    \bhow\ (many|much|long|far|old|fast|tall)\b | \bwhat\ is\ the\ (total|sum|average|area)\b
"""
_FLAGS = re.IGNORECASE | re.VERBOSE | re.DOTALL
_CODE = re.compile(CODE, _FLAGS)
_DANGER = re.compile(" | ".join((VIOLENCE, CRIME, HATE, SEX, PRIVATE)), _FLAGS)
_MATHS = re.compile(MATHS, _FLAGS)
_QUANTITY = re.compile(QUANTITY, _FLAGS)
_NUMBER = re.compile(r"\d+")


def choose(text: str) -> str:
    """Return the domain of a user turn."""
    if _CODE.search(text):
        return "reasoning"
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]} … {text[-TAIL:]}"
    if _DANGER.search(text):
        return "safety"
    asks_quantity = _QUANTITY.search(text) and len(_NUMBER.findall(text)) >= 2
    return "reasoning" if asks_quantity or _MATHS.search(text) else "chat"


def route(prompts: Sequence[RouterInput]) -> list[str]:
    """Return the domain of each prompt's last user turn."""
    return [choose(prompt.text) for prompt in prompts]


@hookimpl
def drsow_routers() -> list[Router]:
    """Offer the router."""
    return [Router("keyword", route, "lists of words, no model; made for English")]
