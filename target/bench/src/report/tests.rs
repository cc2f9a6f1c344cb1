//! Files in, figures and page out.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::table::Table;
use super::testing::{line, matrix, read, sum_up};
use super::{Args, OneRun, page, run};

fn figures(text: &str) -> Value {
    serde_json::to_value(sum_up(text).1).expect("plain values")
}

#[test]
fn json_has_the_figures_of_the_windows() {
    let json = figures(&matrix());
    assert_eq!(json["machine"], json!([["processor", "Some <CPU> & more"]]));
    assert_eq!(json["cases"].as_array().map(Vec::len), Some(2));
    let case = &json["cases"][1];
    assert_eq!((&case["case"], &case["unit"]), (&json!("scsi/null/randread/4k/qd32/split"), &json!("IOPS")));
    let near = &case["figures"][0];
    assert_eq!((&near["who"], &near["cores"], &near["windows"]), (&json!("ringside"), &json!("near"), &json!(4)));
    // Rounds 1 to 4 gave 3010, 3020, 3030 and 3040.
    let rate = json!({"min": 3010.0, "q1": 3017.5, "median": 3025.0, "q3": 3032.5, "max": 3040.0});
    assert_eq!(near["rate"], rate);
    assert_eq!((&near["p50_us"], &near["p99_us"], &near["p999_us"]), (&json!(5.5), &json!(10.0), &Value::Null));
    let all = &case["figures"][2];
    assert_eq!((&all["cores"], &all["windows"], &all["rate"]["median"]), (&json!("all"), &json!(5), &json!(3030.0)));
    assert_eq!(case["figures"].as_array().map(Vec::len), Some(6), "two targets, each near, far and all");
    assert_eq!(case["failures"], json!([]));
}

#[test]
fn json_has_the_ratios_of_rounds_that_both_targets_have() {
    let json = figures(&matrix());
    let ratios = json["cases"][0]["ratios"].as_array().unwrap();
    let of = |cores: &str| ratios.iter().find(|ratio| ratio["cores"] == cores).unwrap();
    assert_eq!((&of("all")["of"], &of("all")["to"]), (&json!("ringside"), &json!("spdk")));
    let all = &of("all")["rate"];
    assert_eq!((&all["pairs"], &all["ratio"]), (&json!(5), &json!(303.0 / 153.0)));
    let [low, high] = [0, 1].map(|end| all["interval"][end].as_f64().unwrap());
    assert!(low >= 305.0 / 155.0 && high <= 301.0 / 151.0, "{low} {high}: within what there is");
    assert!((low..high).contains(&(303.0 / 153.0)), "{low} {high}");
    assert_eq!(of("all")["p99"], json!({"pairs": 5, "ratio": 0.5, "interval": [0.5, 0.5]}));
    assert_eq!(of("near")["rate"]["pairs"], 4);
    assert_eq!(of("near")["rate"]["interval"], Value::Null, "fewer than five");
    assert_eq!(of("far")["rate"]["pairs"], 1);
}

#[test]
fn pairs_of_a_class_have_both_windows_in_it() {
    let case = "scsi/x";
    let lines = [
        line(case, "a", 1, [100, 100], 20, 1),
        line(case, "b", 1, [100, 600], 10, 1),
        line(case, "a", 2, [100, 100], 60, 1),
        line(case, "b", 2, [229, 100], 20, 1),
        line(case, "a", 3, [100, 100], 60, 1),
    ];
    let json = figures(&lines.join("\n"));
    let ratios = json["cases"][0]["ratios"].as_array().unwrap();
    let of = |cores: &str| ratios.iter().find(|ratio| ratio["cores"] == cores).map(|ratio| ratio["rate"].clone());
    assert_eq!(of("near"), Some(json!({"pairs": 1, "ratio": 3.0, "interval": null})));
    assert_eq!(of("mixed"), None);
    assert_eq!(of("all"), Some(json!({"pairs": 2, "ratio": 40.0 / 15.0, "interval": null})));
}

#[test]
fn window_that_failed_is_told_and_counts_for_nothing() {
    let good = line("scsi/x", "a", 1, [100, 100], 20, 1);
    let bad = line("scsi/x", "a", 2, [100, 100], 90, 1);
    for (from, to, why) in [
        (r#""errors":0"#, r#""errors":3"#, "errors 3"),
        (r#""errors":0"#, r#""failure":"gone""#, "gone"),
        (r#""errors":0"#, r#""lost":2"#, "lost 2"),
        (r#""iops":90.0"#, r#""iops":0"#, "nothing was measured"),
    ] {
        let text = format!("{good}\n{}", bad.replace(from, to));
        let json = figures(&text);
        let case = &json["cases"][0];
        assert_eq!(case["failures"], json!([{"who": "a", "round": 2, "why": why}]));
        assert_eq!(case["figures"][0]["windows"], 1, "{why}");
        let table = Table(&sum_up(&text).1).to_string();
        assert!(table.contains(&format!("a  round 2 FAILED: {why}\n")), "{table}");
    }
}

#[test]
fn window_whose_client_lacked_its_core_is_disturbed_unless_it_slept() {
    let window = line("scsi/x", "a", 1, [100, 100], 20, 1).replace(r#""cpu":0.999"#, r#""cpu":0.9"#);
    assert_eq!(figures(&window)["cases"][0]["figures"][0]["disturbed"], 1);
    let asleep = window.replace(r#""cpu""#, r#""interrupt":true,"cpu""#);
    assert_eq!(figures(&asleep)["cases"][0]["figures"][0]["disturbed"], 0);
}

#[test]
fn result_alone_is_a_window_of_who_the_file_is_named_after() {
    let scsi = r#"{"iops":100.0,"rw":"randread","bs":4096,"qd":32,"queues":1,"ring":"split"}"#;
    let json = figures(&format!("{scsi}\n{scsi}\n"));
    assert_eq!(json["cases"][0]["case"], "scsi/randread/4k/qd32/split");
    assert_eq!(json["cases"][0]["figures"][0]["who"], "windows");
    assert_eq!(json["cases"][0]["figures"][0]["windows"], 2);
    let net = r#"{"mpps":1.5,"lat_us":{"p50":0.0,"p99":0.0},"mode":"rx","size":64,"queues":2,"ring":"packed"}"#;
    let json = figures(net);
    let case = &json["cases"][0];
    assert_eq!((&case["case"], &case["unit"]), (&json!("net/rx/64B/packed/q2"), &json!("packets/s")));
    assert_eq!(case["figures"][0]["rate"]["median"], 1.5e6);
    assert_eq!(case["figures"][0]["p99_us"], Value::Null, "0 is not measured");
}

#[test]
fn file_that_has_no_window_is_refused_by_name_line_and_field() {
    let good = line("scsi/x", "a", 1, [100, 100], 20, 7);
    for (from, to, wanted) in [
        (r#""who":"a","#, "", "who: is missing"),
        (r#""who":"a""#, r#""who":"""#, "who: must not be empty"),
        (r#""who":"a""#, r#""who":7"#, "who: must be a text, is 7"),
        (r#""case":"scsi/x","#, "", "case: is missing"),
        (r#""round":1"#, r#""round":1.5"#, "round: must be a whole number, is 1.5"),
        (r#""cores_ns":[100,100]"#, r#""cores_ns":[100]"#, "cores_ns: must be two numbers, is [100]"),
        (r#""iops":20.0"#, r#""iops":"20""#, "result.iops: must be a number of at least 0, is \"20\""),
        (r#""iops":20.0"#, r#""iops":-1"#, "result.iops: must be a number of at least 0, is -1"),
        (r#""iops":20.0,"#, "", "result.mpps: is missing"),
        (r#""p99":7"#, r#""p99":"x""#, "result.lat_us.p99: must be a number of at least 0, is \"x\""),
        (r#""cpu":0.999"#, r#""lat_hist_ns":"AAAA""#, "result.lat_hist_ns: is not a deflated V2 HdrHistogram: "),
        (r#""cpu":0.999"#, r#""failure":1"#, "result.failure: must be a text, is 1"),
        (r#""result":{"#, r#""other":{"#, "result: is missing"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        let error = read(&format!("{good}\n\n{bad}\n")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("dir/windows.jsonl:3: {wanted}")), "{error}");
    }
    for (text, wanted) in [
        ("[1]", "dir/windows.jsonl:1: window: must be an object"),
        (r#"{"machine":[["a"]]}"#, "dir/windows.jsonl:1: machine: must be a list of pairs of texts"),
        ("{\"who\"", "dir/windows.jsonl: EOF while parsing an object at line 1 column 6"),
        ("", "no window in any of the files"),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), wanted);
    }
}

#[test]
fn case_with_two_units_is_refused() {
    let packets = line("scsi/x", "b", 1, [100, 100], 20, 7).replace("iops", "mpps");
    let error = read(&(line("scsi/x", "a", 1, [100, 100], 20, 7) + &packets)).unwrap_err().to_string();
    assert_eq!(error, "case scsi/x: some windows count IOPS, others packets/s");
}

#[test]
fn table_has_a_line_for_each_target_and_class() {
    let text = Table(&sum_up(&matrix()).1).to_string();
    assert!(text.starts_with("processor: Some <CPU> & more\n\ncase "), "{text}");
    let words = |start: &str| {
        let line = text.lines().find(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(start));
        line.unwrap_or_else(|| panic!("{start}: {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        words("scsi/null/randread/4k/qd32/split ringside near"),
        "scsi/null/randread/4k/qd32/split ringside near 4 3.025 k 3.018 k to 3.033 k 5.50 10.00"
    );
    assert_eq!(
        words("scsi/null/randread/4k/qd1/split spdk near"),
        "scsi/null/randread/4k/qd1/split spdk near 4 152 152 to 153 5.50 20.00 1.984 [4 pairs, fewer than 5], p99 0.500 [4 \
         pairs, fewer than 5]"
    );
    assert!(words("scsi/null/randread/4k/qd1/split spdk all").contains("1.980 [1."), "{text}");
}

#[test]
fn table_says_nothing_twice_where_all_windows_are_of_one_class() {
    let text = Table(&sum_up(&line("scsi/x", "a", 1, [100, 100], 20, 1)).1).to_string();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("scsi/x  a  near "), "{text}");
}

#[test]
fn page_is_well_formed_and_has_plots_for_each_case() {
    let (input, summary) = sum_up(&matrix());
    let text = page::html(&input, &summary).expect("drawn");
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let page = roxmltree::Document::parse_with_options(&text, options).expect("well-formed");
    let sections: Vec<_> = page.descendants().filter(|node| node.has_tag_name("section")).collect();
    assert_eq!(sections.len(), 2);
    for section in &sections {
        let heading = section.descendants().find(|node| node.has_tag_name("h2")).and_then(|node| node.text());
        assert!(heading.is_some_and(|text| text.starts_with("scsi/null/randread/4k/qd")), "{heading:?}");
        let plots = section.descendants().filter(|node| node.tag_name().name() == "svg").count();
        assert_eq!(plots, 2, "rates by round, and latencies");
    }
    let captions: Vec<_> =
        page.descendants().filter(|node| node.has_tag_name("figcaption")).filter_map(|node| node.text()).collect();
    for wanted in [
        "scsi/null: median rates, with quartiles",
        "scsi/null: ratios, with 95 % intervals",
        "scsi/null/randread/4k/*/split: scaling",
    ] {
        assert!(captions.contains(&wanted), "{captions:?}");
    }
    let external = ["http://", "https://"].iter().flat_map(|start| text.match_indices(start)).count();
    let namespaces = text.matches("xmlns=\"http://www.w3.org/2000/svg\"").count();
    assert_eq!(external, namespaces, "no other file is needed");
}

#[test]
fn page_of_names_with_markup_is_well_formed() {
    let window = line("a<b>/&c", "x&<y>", 1, [100, 100], 20, 1) + &line("a<b>/&c", "z", 1, [100, 100], 20, 1);
    let (input, summary) = sum_up(&window);
    let text = page::html(&input, &summary).expect("drawn");
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let page = roxmltree::Document::parse_with_options(&text, options).expect("well-formed");
    assert!(page.descendants().any(|node| node.has_tag_name("td") && node.text() == Some("x&<y>")));
}

#[test]
fn run_writes_what_it_is_asked_for_and_reads_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.jsonl"), line("scsi/x", "a", 1, [100, 100], 20, 7)).unwrap();
    fs::write(path("b.jsonl"), line("scsi/x", "b", 1, [100, 100], 10, 7)).unwrap();
    let args = Args {
        windows: vec![path("a.jsonl"), path("b.jsonl")],
        json: Some(path("out.json")),
        html: Some(path("out.html")),
    };
    run(&args).unwrap();
    let json: Value = serde_json::from_str(&fs::read_to_string(path("out.json")).unwrap()).unwrap();
    assert_eq!(json["cases"][0]["ratios"][0]["rate"]["ratio"], 2.0);
    assert!(fs::read_to_string(path("out.html")).unwrap().ends_with("</html>\n"));
    let missing = Args { windows: vec![path("none")], ..args };
    let error = format!("{:#}", run(&missing).unwrap_err());
    assert!(error.contains("none: No such file"), "{error}");
}

#[test]
fn one_run_has_a_page_of_its_one_window() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.html");
    let result = format!(
        r#"{{"iops":100.0,"lat_hist_ns":"{}","rw":"write","bs":512,"qd":1,"queues":1,"ring":"packed"}}"#,
        super::testing::histogram(9)
    );
    OneRun::create(&path).unwrap().write(&result, Some(0)).unwrap();
    let page = fs::read_to_string(&path).unwrap();
    for wanted in
        ["<h2>scsi/write/512/qd1/packed</h2>", "<td>ringside</td>", "core 0 governor", "latencies of all windows"]
    {
        assert!(page.contains(wanted), "{wanted}");
    }
    let error = OneRun::create(Path::new("/nowhere/out.html")).map(drop).unwrap_err();
    assert_eq!(format!("{error:#}"), "--report /nowhere/out.html: No such file or directory (os error 2)");
}
