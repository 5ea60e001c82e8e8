//! Who the invented patients are, who examined them, and what of that is planted in a study.
//!
//! Nobody here exists: names are drawn from lists, NHS numbers come from the 999 range kept for tests, telephone
//! numbers from the range Ofcom keeps for drama, and no hospital has these names.

use crate::random::Random;

/// A person who does not exist.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Patient {
    /// Patient's Name (0010,0010), VR PN, before encoding in a character set.
    pub name: String,
    /// Patient ID (0010,0020): an NHS number of the 999 test range, ten digits, the last a check digit (modulus 11).
    pub nhs_number: String,
    /// The number the hospital gave, in Other Patient IDs Sequence (0010,1002).
    pub hospital_number: String,
    /// Patient's Birth Date (0010,0030), VR DA.
    pub birth_date: String,
    /// Patient's Sex (0010,0040): `F` or `M`.
    pub sex: &'static str,
    /// Patient's Age (0010,1010) in 2026, VR AS.
    pub age: String,
    /// Patient's Weight (0010,1030) in kg.
    pub weight: u16,
    /// Patient's Address (0010,1040), also in a private element.
    pub address: String,
    /// Patient's Telephone Numbers (0010,2154).
    pub telephone: String,
}

/// What was asked for, by whom, and where it was done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    /// Accession Number (0008,0050).
    pub accession_number: String,
    /// Study ID (0020,0010).
    pub study_id: String,
    /// Requested Procedure ID (0040,1001).
    pub requested_procedure_id: String,
    /// Study Date (0008,0020), in 2026, VR DA.
    pub date: String,
    /// Study Time (0008,0030), VR TM.
    pub time: String,
    /// Study Description (0008,1030).
    pub description: &'static str,
    /// Reason for the Requested Procedure (0040,1002).
    pub reason: &'static str,
    /// Referring Physician's Name (0008,0090), who is also the Requesting Physician (0032,1032).
    pub referring_physician: String,
    /// Performing Physician's Name (0008,1050).
    pub performing_physician: String,
    /// Operators' Name (0008,1070).
    pub operator: String,
    /// Institution Name (0008,0080).
    pub institution: String,
    /// Institution Address (0008,0081).
    pub institution_address: String,
    /// Requesting Service (0032,1033).
    pub requesting_service: &'static str,
    /// Station Name (0008,1010).
    pub station: String,
    /// Device Serial Number (0018,1000).
    pub device_serial_number: String,
}

/// A text that tells who the patient is or who was involved, and where it was put.
///
/// What leaves after de-identification must not contain any of them, neither in a header nor in a document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Planted {
    /// The attribute's keyword (PS3.6); most are planted in further places, nested and private ones too.
    pub attribute: &'static str,
    /// The text before encoding in a character set.
    pub text: String,
}

impl Patient {
    /// The patient of a seed and a label.
    pub fn new(seed: u64, label: &str) -> Self {
        let mut random = Random::new(seed, &format!("patient {label}"));
        let sex = random.pick(&["F", "M"]);
        let given = random.pick(if sex == "F" { WOMEN } else { MEN });
        let middle = random.pick(if sex == "F" { WOMEN } else { MEN });
        let family = random.pick(FAMILIES);
        let born = 1936 + random.below(66);
        let age = 2026 - born - 1;
        Self {
            name: format!("{family}^{given}^{middle}"),
            nhs_number: nhs_number(&mut random),
            hospital_number: format!("NMR{:07}", random.below(10_000_000)),
            birth_date: format!("{born}{:02}{:02}", 1 + random.below(12), 1 + random.below(28)),
            sex,
            age: format!("{age:03}Y"),
            weight: 48 + random.below(52) as u16,
            address: format!(
                "{} {}, Northmoor NM{} {}QX",
                1 + random.below(98),
                random.pick(STREETS),
                1 + random.below(9),
                1 + random.below(9)
            ),
            telephone: format!("01632 960{:03}", random.below(1000)),
        }
    }
}

impl Order {
    pub(crate) fn new(
        seed: u64,
        label: &str,
        description: &'static str,
        reason: &'static str,
    ) -> Self {
        let mut random = Random::new(seed, &format!("order {label}"));
        let (institution, town) = random.pick(INSTITUTIONS);
        Self {
            accession_number: format!("RNM{:09}", random.below(1_000_000_000)),
            study_id: format!("{}", 10_000 + random.below(90_000)),
            requested_procedure_id: format!("RP{:06}", random.below(1_000_000)),
            date: format!("2026{:02}{:02}", 1 + random.below(12), 1 + random.below(28)),
            time: format!("{:02}{:02}{:02}", random.below(23), random.below(60), random.below(60)),
            description,
            reason,
            referring_physician: person(&mut random, "Dr"),
            performing_physician: person(&mut random, "Dr"),
            operator: person(&mut random, ""),
            institution: institution.to_owned(),
            institution_address: format!(
                "{} {}, {town}",
                1 + random.below(98),
                random.pick(STREETS)
            ),
            requesting_service: random.pick(&[
                "Emergency Department",
                "Acute Medicine",
                "Neurosurgery",
            ]),
            station: format!("NMR{}", random.pick(&["A1", "A2", "B1", "B2"])),
            device_serial_number: format!("SN{:08}", random.below(100_000_000)),
        }
    }
}

/// Everything planted for this patient and this order.
pub(crate) fn planted(patient: &Patient, order: &Order) -> Vec<Planted> {
    [
        ("PatientName", &patient.name),
        ("PatientID", &patient.nhs_number),
        ("OtherPatientIDsSequence", &patient.hospital_number),
        ("PatientBirthDate", &patient.birth_date),
        ("PatientAddress", &patient.address),
        ("PatientTelephoneNumbers", &patient.telephone),
        ("AccessionNumber", &order.accession_number),
        ("RequestedProcedureID", &order.requested_procedure_id),
        ("ReferringPhysicianName", &order.referring_physician),
        ("PerformingPhysicianName", &order.performing_physician),
        ("OperatorsName", &order.operator),
        ("InstitutionName", &order.institution),
        ("InstitutionAddress", &order.institution_address),
        ("DeviceSerialNumber", &order.device_serial_number),
    ]
    .map(|(attribute, text)| Planted { attribute, text: text.clone() })
    .to_vec()
}

/// Whether the tenth digit of an NHS number agrees with the first nine (modulus 11).
pub fn is_nhs_number(number: &str) -> bool {
    let digits: Option<Vec<u32>> = number.chars().map(|digit| digit.to_digit(10)).collect();
    match digits.as_deref() {
        Some([first @ .., last]) if first.len() == 9 => check_digit(first) == Some(*last),
        _ => false,
    }
}

fn nhs_number(random: &mut Random) -> String {
    loop {
        let first = format!("999{:06}", random.below(1_000_000));
        let digits: Vec<u32> = first.chars().filter_map(|digit| digit.to_digit(10)).collect();
        if let Some(check) = check_digit(&digits) {
            return format!("{first}{check}");
        }
    }
}

/// Weights 10 to 2, remainder from 11; a result of 10 means that the number is never issued.
fn check_digit(first_nine: &[u32]) -> Option<u32> {
    let sum: u32 =
        first_nine.iter().zip((2..=10).rev()).map(|(digit, weight)| digit * weight).sum();
    match 11 - sum % 11 {
        11 => Some(0),
        10 => None,
        digit => Some(digit),
    }
}

fn person(random: &mut Random, prefix: &str) -> String {
    let given = random.pick(&[WOMEN, MEN].concat());
    let family = random.pick(FAMILIES);
    if prefix.is_empty() {
        format!("{family}^{given}")
    } else {
        format!("{family}^{given}^^{prefix}")
    }
}

const WOMEN: &[&str] = &[
    "Agnes",
    "Beatrice",
    "Ceridwen",
    "Dorothy",
    "Edith",
    "Fiona",
    "Gwendolen",
    "Harriet",
    "Isla",
    "Morag",
    "Nell",
    "Philippa",
    "Rosalind",
    "Winifred",
];
const MEN: &[&str] = &[
    "Alasdair", "Barnaby", "Cedric", "Duncan", "Edmund", "Fergus", "Gareth", "Hamish", "Idris",
    "Lionel", "Percival", "Rupert", "Tristan", "Wilfred",
];
const FAMILIES: &[&str] = &[
    "Ashgrove",
    "Birtwhistle",
    "Crumplebeck",
    "Dunnockshaw",
    "Eddlethorpe",
    "Fairweather",
    "Greenhalgh-Moss",
    "Hepplewhite",
    "Inchmarlow",
    "Kettleborough",
    "Larkspur",
    "Micklethwaite",
    "Nettlefold",
    "Oakenshaw",
    "Pennyfeather",
    "Quillfeather",
    "Ravenscroft",
    "Sallowfield",
    "Thistlewood",
    "Underhay",
    "Wetherspoke",
];
const STREETS: &[&str] = &[
    "Curlew Lane",
    "Fellmonger Row",
    "Heron Bank",
    "Larch Rise",
    "Millrace Street",
    "Quarry Hill",
    "Tenter Close",
];
const INSTITUTIONS: &[(&str, &str)] = &[
    ("Northmoor District Hospital", "Northmoor"),
    ("Kelderwick General Hospital", "Kelderwick"),
    ("Harrowbeck Infirmary", "Harrowbeck"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nhs_numbers_are_checked_by_modulus_11() {
        for (number, valid) in [
            ("9434765919", true), // the example of the NHS data dictionary
            ("9434765918", false),
            ("943476591", false),
            ("94347659190", false),
            ("943476591x", false),
            ("", false),
        ] {
            assert_eq!(is_nhs_number(number), valid, "{number}");
        }
    }

    #[test]
    fn every_patient_has_a_valid_number_of_the_test_range() {
        for seed in 0..500 {
            let patient = Patient::new(seed, "anybody");

            assert!(is_nhs_number(&patient.nhs_number), "{patient:?}");
            assert!(patient.nhs_number.starts_with("999"));
            assert!(patient.name.len() <= 64, "PS3.5 6.2, PN");
        }
    }
}
