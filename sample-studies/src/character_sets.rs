//! Names in other scripts than English needs.

use crate::charset::Charset;
use crate::ct_series::small_study;
use crate::instance::Study;

/// One study of one small image for each character set; patient's name, physicians and description use it.
pub fn character_sets(seed: u64) -> Vec<Study> {
    NAMES.iter().map(|named| study(seed, named)).collect()
}

/// A name in GB18030 where the second byte of characters is 5CH, a backslash in ASCII (PS3.5 6.1.2.3).
///
/// Valid, and yet torn into four values by readers that split before they decode, `dciodvfy` among them; for that
/// reason it is not one of [`character_sets`].
pub fn backslash_in_gb18030(seed: u64) -> Study {
    study(
        seed,
        &Named {
            study: "charset-gb18030-backslash",
            charset: Charset::Chinese,
            patient: "Cheng^Ben=乗^俓僜",
            physician: "Li^Mei=李^梅",
            description: "头部CT",
        },
    )
}

fn study(seed: u64, named: &Named) -> Study {
    small_study(seed, named.study, 1, |case| {
        case.charset = named.charset;
        named.patient.clone_into(&mut case.patient.name);
        named.physician.clone_into(&mut case.order.referring_physician);
        case.order.description = named.description;
    })
}

struct Named {
    study: &'static str,
    charset: Charset,
    patient: &'static str,
    physician: &'static str,
    description: &'static str,
}

const NAMES: &[Named] = &[
    Named {
        study: "charset-latin-1",
        charset: Charset::Latin1,
        patient: "Müller^Jürgen",
        physician: "Weißenböck^Änne^^Dr",
        description: "Schädel nativ",
    },
    Named {
        study: "charset-utf-8-greek",
        charset: Charset::Utf8,
        patient: "Παπαδοπούλου^Ελένη",
        physician: "Αντωνίου^Νίκος",
        description: "Αξονική τομογραφία",
    },
    Named {
        study: "charset-utf-8-cyrillic",
        charset: Charset::Utf8,
        patient: "Берёзкина^Людмила^Ильинична",
        physician: "Щукин^Юрий",
        description: "КТ головы",
    },
    Named {
        study: "charset-utf-8-chinese",
        charset: Charset::Utf8,
        patient: "Wang^XiaoDong=王^小东",
        physician: "Li^Mei=李^梅",
        description: "头部CT",
    },
    Named {
        study: "charset-japanese",
        charset: Charset::Japanese,
        patient: "Yamada^Tarou=山田^太郎=やまだ^たろう",
        physician: "Suzuki^Hanako=鈴木^花子=すずき^はなこ",
        description: "頭部CT",
    },
    Named {
        study: "charset-korean",
        charset: Charset::Korean,
        patient: "Hong^Gildong=洪^吉洞=홍^길동",
        physician: "Kim^Yuna=金^允兒=김^윤아",
        description: "두부 CT",
    },
    Named {
        study: "charset-gb18030",
        charset: Charset::Chinese,
        patient: "Wang^XiaoDong=王^小东",
        physician: "Li^Mei=李^梅",
        description: "头部CT",
    },
];
