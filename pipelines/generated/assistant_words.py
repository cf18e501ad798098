"""Word lists that the smart-home templates leave open: names of rooms and devices, and free texts.

By language, then by the name of the list or the kind of device.
"""

from __future__ import annotations

AREAS = {
    "en": "kitchen|living room|bedroom|bathroom|garage|office|hallway|nursery|dining room|basement|attic|guest room|"
    "laundry room|porch|garden|playroom|study|pantry",
    "hi": "रसोई|बैठक|बेडरूम|बाथरूम|गैराज|दफ़्तर|गलियारा|बच्चों का कमरा|भोजन कक्ष|तहखाना|छत|मेहमान कमरा|बरामदा|बगीचा|स्टडी|पूजा घर",
}
FLOORS = {
    "en": "first|second|third|ground|upper|lower|top|middle",
    "hi": "पहली मंज़िल|दूसरी मंज़िल|निचली मंज़िल|ऊपरी मंज़िल",
}

# Devices by kind.
NAMES = {
    "en": {
        "light": "bedside lamp|floor lamp|ceiling light|desk lamp|chandelier|reading light|porch light|night light|"
        "string lights|mirror light|vanity light|spotlights",
        "switch": "coffee maker|heater plug|christmas tree|water pump|kettle|toaster|humidifier|aquarium pump|"
        "charger|fountain|space heater|rice cooker",
        "input_boolean": "guest mode|vacation mode|away mode|sleep mode|movie mode|quiet hours",
        "fan": "ceiling fan|tower fan|desk fan|exhaust fan|box fan|bathroom fan|attic fan|standing fan",
        "media_player": "television|speaker|soundbar|radio|stereo|projector|record player|smart display|tv|home cinema",
        "climate": "thermostat|air conditioner|heat pump|radiator|boiler|floor heating|ac|furnace",
        "cover": "roller blinds|left curtain|garage door|front gate|awning|roof shutter|right curtain|patio shade",
        "valve": "sprinkler valve|water valve|gas valve|irrigation valve|main valve|drip valve",
        "lock": "front door|back door|side gate|cellar door|safe|patio door|mailbox|shed door",
        "sensor": "outdoor humidity|battery level|power meter|air quality|rain gauge|water meter|soil moisture",
        "binary_sensor": "window sensor|motion sensor|mailbox sensor|garage sensor|door contact|bed sensor",
        "scene": "movie night|good morning|dinner party|bedtime|romantic evening|reading time|sunrise|game day",
        "script": "morning routine|goodnight routine|leaving home|welcome home|water the plants|feed the cat",
        "button": "doorbell|restart router|feed the fish|panic|garage opener|espresso",
        "input_button": "doorbell|restart router|feed the fish|panic|garage opener|espresso",
        "person": "alice|bob|maria|grandma|dad|jonas|priya|mom|omar|sophie|uncle jack|the babysitter",
        "lawn_mower": "mower|lawn mower|robot mower|grass cutter",
        "vacuum": "vacuum|robot vacuum|roomba|hoover|floor cleaner|dusty",
        "todo": "grocery|chores|packing|birthday|work|school|holiday|hardware store|weekend|wish",
        "weather": "london|paris|new york|home|boston|berlin|tokyo|the cabin|mumbai|chicago|oslo|madrid",
    },
    "hi": {
        "light": "टेबल लैंप|छत की लाइट|फर्श लैंप|झूमर|रात की लाइट|पढ़ने की लाइट|आईने की लाइट|झालर",
        "switch": "कॉफी मशीन|पानी का पंप|केतली|हीटर|टोस्टर|फव्वारा|चार्जर|गीज़र",
        "input_boolean": "मेहमान मोड|छुट्टी मोड|सोने का मोड|शांत मोड|मूवी मोड",
        "fan": "छत का पंखा|टेबल पंखा|एग्जॉस्ट फैन|खड़ा पंखा|कूलर|बड़ा पंखा",
        "media_player": "टीवी|स्पीकर|रेडियो|साउंडबार|प्रोजेक्टर|म्यूजिक सिस्टम",
        "climate": "एसी|थर्मोस्टेट|एयर कंडीशनर|रेडिएटर|बॉयलर|हीट पंप",
        "cover": "परदा|शटर|गैराज का दरवाज़ा|मुख्य फाटक|खिड़की|रोशनदान",
        "valve": "पानी का वाल्व|गैस का वाल्व|बगीचे का नल|मुख्य वाल्व|सिंचाई का वाल्व",
        "lock": "मुख्य दरवाज़ा|पिछला दरवाज़ा|तिजोरी|अलमारी|फाटक|गोदाम",
        "weather": "दिल्ली|मुंबई|कोलकाता|चेन्नई|जयपुर|लखनऊ|पटना|पुणे|शिमला|भोपाल",
    },
}

# Free texts.
WORDS = {
    "en": {
        "message": "dinner is ready|the movie is starting|time for bed|we are leaving in ten minutes|"
        "the guests are here|"
        "breakfast is on the table|please come downstairs|the laundry is done|school starts soon|it is raining",
        "search_query": "abbey road|the beatles|jazz classics|bohemian rhapsody|workout mix|the daily news|mozart|"
        "star wars|road trip songs|taylor swift|true crime|relaxing piano|purple rain|summer hits|the office|"
        "miles davis|"
        "thriller|planet earth|johnny cash|sleep sounds",
        "zone": "home|work|school|the gym|the office|the park|the store",
        "timer_name": "pizza|pasta|laundry|egg|homework|nap|tea|workout|oven|rice|cookie|parking|study|meditation",
        "timer_command": "turn off the lights|open the garage door|stop the music|lock the front door|turn on the fan|"
        "close the curtains|start the vacuum|turn down the heat|play some jazz|turn off the television",
        "shopping_list_item": "milk|eggs|bread|apples|olive oil|toilet paper|dish soap|orange juice|coffee beans|"
        "butter|"
        "bananas|cat food|rice|tomatoes|cheddar cheese|light bulbs|chicken wings|paper towels",
        "todo_list_item": "call the dentist|pay the rent|wash the car|water the plants|book flights|fix the sink|"
        "return the books|buy a present|clean the oven|walk the dog|renew passport|print tickets|mow the lawn|milk",
    },
    "hi": {},
}


def values(text: str) -> tuple[str, ...]:
    """Return the values of a list in the notation above."""
    return tuple(text.split("|"))
