// Command launcher runs the command of a pipeline's task: it fills in placeholders, fetches input
// artifacts from S3, runs the command, and stores its outputs.
//
//	launcher copy PATH   an init container puts it beside the user's command
//	launcher run         the task is in KFP_TASK, what it is given in the variables that names
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	outputs  = "/kfp/outputs"
	metadata = "/tmp/kfp_outputs/output_metadata.json"
)

type kind struct {
	Title   string `json:"schemaTitle"`
	Version string `json:"schemaVersion"`
}

type given struct {
	Type string `json:"type"` // of a parameter
	Kind kind   `json:"kind"` // of an artifact
	Env  string `json:"env"`  // where the value is
	// A list of a loop's outputs, which Argo gives as texts.
	Collected bool `json:"collected"`
}

// task is what the stand-in says of a task; values are in the environment.
type task struct {
	Command          []string          `json:"command"`
	Image            string            `json:"image"`
	Parameters       map[string]given  `json:"parameters"`
	Artifacts        map[string]given  `json:"artifacts"`
	OutputParameters map[string]string `json:"outputParameters"`
	OutputArtifacts  map[string]kind   `json:"outputArtifacts"`
	Root             string            `json:"root"`
	Cache            bool              `json:"cache"`
	CacheRoot        string            `json:"cacheRoot"`
}

type artifact struct {
	Name     string         `json:"name"`
	Type     kind           `json:"type"`
	URI      string         `json:"uri"`
	Metadata map[string]any `json:"metadata,omitempty"`
}

type artifacts struct {
	Artifacts []artifact `json:"artifacts"`
}

// produced is what a command says of its outputs, and what is stored for a later run.
type produced struct {
	Parameters map[string]any       `json:"parameterValues,omitempty"`
	Artifacts  map[string]artifacts `json:"artifacts,omitempty"`
}

// report goes to the stand-in, which records it in ML Metadata.
type report struct {
	Cached      bool   `json:"cached"`
	Fingerprint string `json:"fingerprint"`
	Pod         string `json:"pod"`
	Logs        string `json:"logs"`
	Inputs      any    `json:"inputs"`
	produced
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("launcher: ")
	switch {
	case len(os.Args) == 3 && os.Args[1] == "copy":
		check(copySelf(os.Args[2]))
	case len(os.Args) == 2 && os.Args[1] == "run":
		os.Exit(run())
	default:
		log.Fatal("launcher copy PATH | run")
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func copySelf(to string) error {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

func run() int {
	var t task
	check(json.Unmarshal([]byte(os.Getenv("KFP_TASK")), &t))
	pod, err := os.Hostname()
	check(err)
	input := executorInput(t, t.Root+"/"+pod)
	told := report{Pod: pod, Fingerprint: fingerprint(t, input), Inputs: input.Inputs}
	stored := t.CacheRoot + "/" + told.Fingerprint
	if t.Cache {
		if data, err := fetch(stored); err == nil {
			check(json.Unmarshal(data, &told.produced))
			told.Cached = true
			log.Print("the outputs of an earlier run are taken")
			check(tell(t, told))
			return 0
		}
	}
	for _, list := range input.Inputs.Artifacts {
		for _, one := range list.Artifacts {
			check(download(one.URI))
		}
	}
	code, logged := execute(t, input)
	told.Logs = t.Root + "/" + pod + "/executor-logs"
	check(put(told.Logs, logged))
	if code != 0 {
		return code
	}
	told.produced = collect(t, input)
	// Always, since a retried run looks there even where caching is off.
	data, err := json.Marshal(told.produced)
	check(err)
	check(put(stored, data))
	check(tell(t, told))
	return 0
}

// execute runs the command; its output goes to the pod's log and is returned.
func execute(t task, input *executor) (int, []byte) {
	words := []string{}
	for _, word := range t.Command {
		words = append(words, input.fill(word)...)
	}
	for name := range t.OutputParameters {
		check(os.MkdirAll(filepath.Dir(input.Outputs.Parameters[name].File), 0o777))
	}
	for name := range t.OutputArtifacts {
		check(os.MkdirAll(filepath.Dir(local(input.Outputs.Artifacts[name].Artifacts[0].URI)), 0o777))
	}
	check(os.MkdirAll(filepath.Dir(metadata), 0o777))
	if len(words) == 0 {
		log.Fatal("the container names no command")
	}
	var logged bytes.Buffer
	command := exec.Command(words[0], words[1:]...)
	command.Stdout = io.MultiWriter(os.Stdout, &logged)
	command.Stderr = io.MultiWriter(os.Stderr, &logged)
	err := command.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		code := ended.ExitCode()
		if code < 0 {
			code = 137
		}
		return code, logged.Bytes()
	}
	check(err)
	return 0, logged.Bytes()
}

// collect reads the outputs and stores the artifacts.
func collect(t task, input *executor) produced {
	made := produced{Parameters: map[string]any{}, Artifacts: map[string]artifacts{}}
	var told produced
	if data, err := os.ReadFile(metadata); err == nil {
		check(decode(data, &told))
	}
	for name, kind := range t.OutputParameters {
		if value, ok := told.Parameters[name]; ok {
			made.Parameters[name] = value
			continue
		}
		data, err := os.ReadFile(input.Outputs.Parameters[name].File)
		if err != nil {
			log.Printf("the command wrote no output %q", name)
			continue
		}
		made.Parameters[name] = typed(string(data), kind)
	}
	for name := range t.OutputArtifacts {
		one := input.Outputs.Artifacts[name].Artifacts[0]
		if list := told.Artifacts[name].Artifacts; len(list) > 0 {
			one.Metadata = list[0].Metadata
			if list[0].URI != "" {
				one.URI = list[0].URI
			}
		}
		check(upload(one.URI))
		made.Artifacts[name] = artifacts{[]artifact{one}}
	}
	return made
}

// tell writes what Argo hands on: a file for each output and the report.
func tell(t task, told report) error {
	for _, folder := range []string{outputs + "/parameters", outputs + "/artifacts"} {
		if err := os.MkdirAll(folder, 0o777); err != nil {
			return err
		}
	}
	for name := range t.OutputParameters {
		value, ok := told.Parameters[name]
		if !ok {
			continue
		}
		if err := os.WriteFile(outputs+"/parameters/"+name, []byte(text(value)), 0o644); err != nil {
			return err
		}
	}
	for name := range t.OutputArtifacts {
		data, _ := json.Marshal(told.Artifacts[name])
		if err := os.WriteFile(outputs+"/artifacts/"+name, data, 0o644); err != nil {
			return err
		}
	}
	data, err := json.Marshal(told)
	if err != nil {
		return err
	}
	return os.WriteFile(outputs+"/report", data, 0o644)
}

// fingerprint is the same for tasks that run the same command on the same inputs.
func fingerprint(t task, input *executor) string {
	data, err := json.Marshal([]any{t.Command, t.Image, input.Inputs, t.OutputParameters, t.OutputArtifacts})
	check(err)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func decode(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("what the command wrote is not JSON: %w", err)
	}
	return nil
}
