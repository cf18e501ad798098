"""Hindi names of a home's rooms and devices: the catalogue that fills slots after translation.

It has every proper name in :mod:`gristmill.pipelines.generated.assistant_words`, number words, and the values that the
templates of both languages list. It plays the part of an assistant's catalogues of devices, contacts and cities.
"""

from __future__ import annotations

from functools import cache

from gristmill.pipelines.generated.assistant import number_words, shared_values

NUMBERS = range(101)  # with words in the catalogue: degrees, percent, minutes

_AREAS = (
    "kitchen=रसोई|living room=बैठक|bedroom=बेडरूम|bathroom=बाथरूम|garage=गैराज|office=दफ़्तर|hallway=गलियारा|"
    "nursery=बच्चों का कमरा|dining room=भोजन कक्ष|basement=तहखाना|attic=छत|guest room=मेहमान कमरा|"
    "laundry room=धुलाई घर|porch=बरामदा|garden=बगीचा|playroom=खेल का कमरा|study=स्टडी|pantry=भंडार|"
    "first=पहली मंज़िल|second=दूसरी मंज़िल|third=तीसरी मंज़िल|ground=निचली मंज़िल|upper=ऊपरी मंज़िल|"
    "lower=निचली मंज़िल|top=ऊपरी मंज़िल|middle=बीच की मंज़िल"
)
_THINGS = (
    "bedside lamp=बेडसाइड लैंप|floor lamp=फर्श लैंप|ceiling light=छत की लाइट|desk lamp=टेबल लैंप|chandelier=झूमर|"
    "reading light=पढ़ने की लाइट|porch light=बरामदे की लाइट|night light=रात की लाइट|string lights=झालर|"
    "mirror light=आईने की लाइट|vanity light=शीशे की लाइट|spotlights=स्पॉटलाइट|coffee maker=कॉफी मशीन|"
    "heater plug=हीटर|christmas tree=क्रिसमस ट्री|water pump=पानी का पंप|kettle=केतली|toaster=टोस्टर|"
    "humidifier=ह्यूमिडिफायर|aquarium pump=एक्वेरियम पंप|charger=चार्जर|fountain=फव्वारा|space heater=हीटर|"
    "rice cooker=राइस कुकर|guest mode=मेहमान मोड|vacation mode=छुट्टी मोड|away mode=बाहर मोड|"
    "sleep mode=सोने का मोड|movie mode=मूवी मोड|quiet hours=शांत मोड|ceiling fan=छत का पंखा|tower fan=टावर पंखा|"
    "desk fan=टेबल पंखा|exhaust fan=एग्जॉस्ट फैन|box fan=बड़ा पंखा|bathroom fan=बाथरूम का पंखा|attic fan=छत का पंखा|"
    "standing fan=खड़ा पंखा|television=टीवी|speaker=स्पीकर|soundbar=साउंडबार|radio=रेडियो|stereo=म्यूजिक सिस्टम|"
    "projector=प्रोजेक्टर|record player=रिकॉर्ड प्लेयर|smart display=स्मार्ट डिस्प्ले|tv=टीवी|home cinema=होम सिनेमा|"
    "thermostat=थर्मोस्टेट|air conditioner=एयर कंडीशनर|heat pump=हीट पंप|radiator=रेडिएटर|boiler=बॉयलर|"
    "floor heating=फर्श हीटिंग|ac=एसी|furnace=भट्ठी|roller blinds=परदा|left curtain=बायां परदा|"
    "garage door=गैराज का दरवाज़ा|front gate=मुख्य फाटक|awning=छज्जा|roof shutter=शटर|right curtain=दायां परदा|"
    "patio shade=आंगन की छाया|sprinkler valve=फुहारे का वाल्व|water valve=पानी का वाल्व|gas valve=गैस का वाल्व|"
    "irrigation valve=सिंचाई का वाल्व|main valve=मुख्य वाल्व|drip valve=टपक का वाल्व|front door=मुख्य दरवाज़ा|"
    "back door=पिछला दरवाज़ा|side gate=फाटक|cellar door=तहखाने का दरवाज़ा|safe=तिजोरी|patio door=आंगन का दरवाज़ा|"
    "mailbox=डाक पेटी|shed door=गोदाम|outdoor humidity=बाहर की नमी|battery level=बैटरी स्तर|power meter=बिजली मीटर|"
    "air quality=हवा की गुणवत्ता|rain gauge=वर्षामापी|water meter=पानी का मीटर|soil moisture=मिट्टी की नमी|"
    "window sensor=खिड़की सेंसर|motion sensor=मोशन सेंसर|mailbox sensor=डाक पेटी सेंसर|garage sensor=गैराज सेंसर|"
    "door contact=दरवाज़ा सेंसर|bed sensor=बेड सेंसर|doorbell=दरवाज़े की घंटी|espresso=एस्प्रेसो|vacuum=वैक्यूम|"
    "robot vacuum=रोबोट वैक्यूम|mower=घास काटने की मशीन|lawn mower=घास काटने की मशीन"
)
_NAMES = (
    "alice=ऐलिस|bob=बॉब|maria=मारिया|grandma=दादी|dad=पापा|jonas=जोनास|priya=प्रिया|mom=मम्मी|omar=उमर|sophie=सोफी|"
    "london=लंदन|paris=पेरिस|new york=न्यूयॉर्क|home=घर|boston=बोस्टन|berlin=बर्लिन|tokyo=टोक्यो|mumbai=मुंबई|"
    "chicago=शिकागो|oslo=ओस्लो|madrid=मैड्रिड"
)

# A small dictionary of household words.
_DICTIONARY = (
    "timer=टाइमर|timers=टाइमर|minute=मिनट|minutes=मिनट|second=सेकंड|seconds=सेकंड|hour=घंटा|hours=घंटे|time=समय|"
    "for=के लिए|from=से|in=में|on=पर|of=का|my=मेरा|our=हमारा|all=सारे|every=हर|here=यहाँ|everywhere=हर जगह|after=के बाद|"
    "light=लाइट|lights=लाइटें|lighting=रोशनी|lamp=बत्ती|lamps=बत्तियाँ|bulb=बल्ब|brightness=चमक|color=रंग|kelvin=केल्विन|"
    "percent=प्रतिशत|level=स्तर|bright=तेज़|dark=अंधेरा|dim=धीमा|volume=आवाज़|music=संगीत|song=गाना|songs=गाने|track=ट्रैक|"
    "video=वीडियो|movie=फ़िल्म|episode=एपिसोड|show=शो|media=मीडिया|player=प्लेयर|playlist=गानों की सूची|radio=रेडियो|"
    "play=बजाओ|pause=रोको|stop=रोक दो|resume=फिर से शुरू करो|unpause=फिर से शुरू करो|continue=जारी रखो|skip=आगे बढ़ाओ|"
    "replay=फिर से बजाओ|start=शुरू करो|cancel=रद्द करो|remove=हटाओ|delete=मिटाओ|add=जोड़ो|create=बनाओ|set=सेट करो|"
    "change=बदलो|increase=बढ़ाओ|decrease=घटाओ|mute=चुप करो|go=जाओ|take=लो|give=दो|tell=बताओ|next=अगला|previous=पिछला|"
    "last=पिछला|first=पहला|again=फिर से|back=पीछे|forward=आगे|weather=मौसम|rain=बारिश|sun=धूप|cold=ठंड|heat=गर्मी|"
    "wind=हवा|today=आज|tomorrow=कल|now=अभी|what=क्या|which=कौन सा|how=कैसा|how many=कितने|how long=कितनी देर|is=है|"
    "are=हैं|left=बाकी|status=स्थिति|state=स्थिति|name=नाम|called=नाम का|item=चीज़|house=घर|floor=मंज़िल|room=कमरा"
)


def dictionary() -> list[tuple[str, str]]:
    """Return English words with one Hindi translation each."""
    return [(english, hindi) for english, _, hindi in (entry.partition("=") for entry in _DICTIONARY.split("|"))]


@cache
def catalogue() -> dict[str, str]:
    """Return the Hindi value of each English value."""
    pairs = [entry.partition("=") for entry in "|".join((_AREAS, _THINGS, _NAMES)).split("|")]
    numbers = {number_words("en", n): number_words("hi", n) for n in NUMBERS}
    return {**shared_values("en", "hi"), **numbers, **{english: hindi for english, _, hindi in pairs}}
