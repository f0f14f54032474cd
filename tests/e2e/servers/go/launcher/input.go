package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"regexp"
	"strings"
)

type outputFile struct {
	File string `json:"outputFile"`
}

// executor is what a command may be given as a whole ({{$}}): its inputs, and where its outputs go.
type executor struct {
	Inputs struct {
		Parameters map[string]any       `json:"parameterValues,omitempty"`
		Artifacts  map[string]artifacts `json:"artifacts,omitempty"`
	} `json:"inputs"`
	Outputs struct {
		Parameters map[string]outputFile `json:"parameters,omitempty"`
		Artifacts  map[string]artifacts  `json:"artifacts,omitempty"`
		File       string                `json:"outputFile"`
	} `json:"outputs"`
}

func executorInput(t task, root string) *executor {
	e := &executor{}
	e.Inputs.Parameters = map[string]any{}
	e.Inputs.Artifacts = map[string]artifacts{}
	e.Outputs.Parameters = map[string]outputFile{}
	e.Outputs.Artifacts = map[string]artifacts{}
	e.Outputs.File = metadata
	for name, parameter := range t.Parameters {
		value := os.Getenv(parameter.Env)
		if parameter.Collected {
			value = joined(value)
		}
		e.Inputs.Parameters[name] = typed(value, parameter.Type)
	}
	for name, one := range t.Artifacts {
		e.Inputs.Artifacts[name] = list(os.Getenv(one.Env))
	}
	for name := range t.OutputParameters {
		e.Outputs.Parameters[name] = outputFile{"/tmp/kfp/outputs/" + name}
	}
	for name, kind := range t.OutputArtifacts {
		e.Outputs.Artifacts[name] = artifacts{[]artifact{{Name: name, Type: kind, URI: root + "/" + name}}}
	}
	return e
}

// list reads an artifact, or the list that Argo makes of those of a loop.
func list(value string) artifacts {
	var one artifacts
	if json.Unmarshal([]byte(value), &one) == nil {
		return one
	}
	var texts []string
	check(json.Unmarshal([]byte(value), &texts))
	for _, inner := range texts {
		one.Artifacts = append(one.Artifacts, list(inner).Artifacts...)
	}
	return one
}

// typed makes a parameter's text the value of its type.
func typed(value, kind string) any {
	if kind == "STRING" {
		return value
	}
	var found any
	if err := decode([]byte(strings.TrimSpace(value)), &found); err != nil {
		log.Fatalf("%q is not of type %s", value, kind)
	}
	return found
}

// joined makes a list of a loop's outputs, which Argo gives as texts, one of their own values.
func joined(value string) string {
	var texts []string
	if json.Unmarshal([]byte(value), &texts) != nil {
		return value
	}
	values := make([]json.RawMessage, len(texts))
	for index, inner := range texts {
		if !json.Valid([]byte(inner)) {
			return value
		}
		values[index] = json.RawMessage(inner)
	}
	data, _ := json.Marshal(values)
	return string(data)
}

// text is a value as a command or another task is given it.
func text(value any) string {
	if found, ok := value.(string); ok {
		return found
	}
	data, err := json.Marshal(value)
	check(err)
	return string(data)
}

var placeholder = regexp.MustCompile(`\{\{\$(?:\.(inputs|outputs)\.(parameters|artifacts)\['([^']+)'\](?:\.(\w+)|\['(\w+)'\])?|\.outputs\.(output_file)|)\}\}`)

// fill replaces a word's placeholders; what is given only if something is present may be several words, or none.
func (e *executor) fill(word string) []string {
	var form struct {
		IfPresent *struct {
			InputName string
			Then      json.RawMessage
			Else      json.RawMessage
		}
		Concat []json.RawMessage
	}
	if strings.HasPrefix(word, "{") && json.Unmarshal([]byte(word), &form) == nil {
		if form.IfPresent != nil {
			chosen := form.IfPresent.Else
			_, parameter := e.Inputs.Parameters[form.IfPresent.InputName]
			_, artifact := e.Inputs.Artifacts[form.IfPresent.InputName]
			if parameter || artifact {
				chosen = form.IfPresent.Then
			}
			return e.words(chosen)
		}
		if form.Concat != nil {
			whole := ""
			for _, part := range form.Concat {
				whole += strings.Join(e.words(part), "")
			}
			return []string{whole}
		}
	}
	return []string{placeholder.ReplaceAllStringFunc(word, e.value)}
}

func (e *executor) words(raw json.RawMessage) []string {
	if len(raw) == 0 {
		return nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return e.fill(one)
	}
	var several []json.RawMessage
	if json.Unmarshal(raw, &several) == nil {
		found := []string{}
		for _, inner := range several {
			found = append(found, e.words(inner)...)
		}
		return found
	}
	return e.fill(string(raw))
}

func (e *executor) value(found string) string {
	match := placeholder.FindStringSubmatch(found)
	way, what, name, field := match[1], match[2], match[3], match[4]+match[5]
	switch {
	case match[6] != "":
		return metadata
	case way == "":
		data, err := json.Marshal(e)
		check(err)
		return string(data)
	case what == "parameters" && way == "inputs":
		value, ok := e.Inputs.Parameters[name]
		if !ok {
			log.Fatalf("no value for the parameter %q", name)
		}
		return text(value)
	case what == "parameters":
		return e.Outputs.Parameters[name].File
	}
	held := e.Inputs.Artifacts[name]
	if way == "outputs" {
		held = e.Outputs.Artifacts[name]
	}
	if len(held.Artifacts) == 0 {
		log.Fatalf("no artifact %q", name)
	}
	one := held.Artifacts[0]
	switch field {
	case "path":
		return local(one.URI)
	case "uri":
		return one.URI
	case "metadata":
		return text(one.Metadata)
	}
	return fmt.Sprint(one.URI)
}
