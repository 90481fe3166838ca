"""Sentences in 27 languages, none of which the identifier was fitted on."""

import sys

import pytest

from qwen2lite.train.language import (
    SCRIPTS,
    SHARED,
    UNKNOWN,
    LanguageIdentifier,
    cldr_names,
)

SENTENCES = {
    "en": "The children have built a small boat out of wood and want to sail it on the pond.",
    "de": "Die Kinder haben ein kleines Boot aus Holz gebaut und wollen es auf dem Teich fahren.",
    "fr": "Les enfants ont construit un petit bateau en bois et veulent naviguer sur l'étang.",
    "es": "Los niños han construido un pequeño barco de madera y quieren navegar en el estanque.",
    "pt": "As crianças construíram um pequeno barco de madeira e querem navegar na lagoa.",
    "it": "I bambini hanno costruito una piccola barca di legno e vogliono navigare nello stagno.",
    "nl": "De kinderen hebben een kleine boot van hout gebouwd en willen ermee op de vijver varen.",
    "cs": "Děti postavily malou loďku ze dřeva a chtějí s ní plout po rybníku.",
    "pl": "Dzieci zbudowały małą łódkę z drewna i chcą nią pływać po stawie.",
    "tr": "Çocuklar tahtadan küçük bir tekne yaptılar ve onu gölde yüzdürmek istiyorlar.",
    "vi": "Bọn trẻ đã đóng một chiếc thuyền nhỏ bằng gỗ và muốn thả nó trên mặt hồ.",
    "id": "Anak-anak membuat perahu kecil dari kayu dan ingin bermain dengannya di kolam.",
    "fil": "Gumawa ang mga bata ng maliit na bangka mula sa kahoy at gusto nilang maglayag sa lawa.",
    "ar": "بنى الأطفال قاربا صغيرا من الخشب ويريدون أن يبحروا به في البركة.",
    "fa": "بچه‌ها یک قایق کوچک از چوب ساخته‌اند و می‌خواهند آن را روی برکه برانند.",
    "ur": "بچوں نے لکڑی کی ایک چھوٹی کشتی بنائی ہے اور وہ اسے تالاب میں چلانا چاہتے ہیں۔",
    "ru": "Дети построили маленькую лодку из дерева и хотят плавать на ней по пруду.",
    "he": "הילדים בנו סירה קטנה מעץ ורוצים לשוט בה באגם.",
    "hi": "बच्चों ने लकड़ी की एक छोटी नाव बनाई है और उसे तालाब में चलाना चाहते हैं।",
    "bn": "শিশুরা কাঠ দিয়ে একটি ছোট নৌকা বানিয়েছে এবং পুকুরে ভাসাতে চায়।",
    "zh": "孩子们用木头造了一条小船，想在池塘里划。",
    "ja": "子供たちは木で小さな船を作り、池に浮かべたいと思っている。",
    "ko": "아이들이 나무로 작은 배를 만들어 연못에 띄우고 싶어 한다.",
    "th": "เด็กๆ ต่อเรือลำเล็กจากไม้และอยากแล่นเรือในบึง",
    "lo": "ເດັກນ້ອຍສ້າງເຮືອນ້ອຍຈາກໄມ້",
    "my": "ကလေးများသည် သစ်သားဖြင့် လှေငယ်တစ်စင်း ပြုလုပ်ကြသည်။",
    "km": "ក្មេងៗបានធ្វើទូកតូចមួយពីឈើ",
}


@pytest.fixture(scope="module")
def identify():
    return LanguageIdentifier()


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_of_ours(identify, language):
    assert identify(SENTENCES[language]) == language


@pytest.mark.parametrize(
    ("text", "relative"),
    [
        ("Kanak-kanak itu membina sebuah perahu kecil daripada kayu.", "id"),
        ("Naghimo ang mga bata og gamay nga sakayan nga kahoy.", "fil"),
    ],
)
def test_malay_and_cebuano_go_by_their_relatives(identify, text, relative):
    assert identify(text) == relative


def test_all_27_are_tried():
    assert set(SENTENCES) == {*SCRIPTS, *SHARED}
    assert len(SENTENCES) == 27


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("", UNKNOWN),
        ("12 + 34 = 46 !!", UNKNOWN),
        ("Τα παιδιά έφτιαξαν μια μικρή βάρκα.", UNKNOWN),  # no Greek among the 29
        ("Wir sagen 你好 und meinen guten Tag.", "de"),
        ("“の”是日语里最常见的字之一，这句话却是用中文写成的，读者一看就知道。", "zh"),
        ("ＤＩＥ ＫＩＮＤＥＲ ＳＰＩＥＬＥＮ ＡＵＦ ＤＥＲ ＷＩＥＳＥ.", "de"),
    ],
)
def test_mixed_and_odd_texts(identify, text, language):
    assert identify(text) == language


def test_counts_by_hand():
    identify = LanguageIdentifier({"aa": ["aba aba"], "bb": ["bab bab bab"]})
    assert [identify(text) for text in ("aba", "bab", "a", "b")] == ["aa", "bb", "aa", "bb"]
    # Shares, not counts: more text of a language doesn't make it likelier.
    more = LanguageIdentifier({"aa": ["aba aba"], "bb": ["bab"] * 100})
    assert more("aba") == "aa"


def test_samples_of_more_languages():
    samples = {language: cldr_names(language) for language in ("sv", "de", "en")}
    identify = LanguageIdentifier(samples)
    assert identify("Barnen har byggt en liten båt av trä och vill segla på dammen.") == "sv"
    assert identify(SENTENCES["de"]) == "de"


def test_names_come_from_cldr(monkeypatch):
    assert {"Deutschland", "Französisch", "Januar"} <= set(cldr_names("de"))
    for wrong in ("xx", "not a code"):
        with pytest.raises(ValueError, match=f"no language '{wrong}'"):
            cldr_names(wrong)
    monkeypatch.setitem(sys.modules, "babel", None)
    with pytest.raises(ModuleNotFoundError, match="pip install babel"):
        cldr_names("de")


def test_no_samples():
    with pytest.raises(ValueError, match="no samples of any"):
        LanguageIdentifier({})
    with pytest.raises(ValueError, match="no samples of aa"):
        LanguageIdentifier({"aa": []})
