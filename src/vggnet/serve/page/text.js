// All texts of the page, in the language that the browser prefers.

const TEXTS = {
  en: {
    title: "Draw a digit",
    lead: "A neural network classifies it as you draw.",
    model: "Model",
    drawing: "Drawing",
    pad: "Draw here with mouse, finger or pen. With the keyboard: arrow keys move the pen, space puts it down or lifts it.",
    area: "drawing area",
    hint: "Draw here",
    undo: "Undo",
    clear: "Clear",
    prediction: "Prediction",
    blank: "Nothing drawn yet",
    nothing: "No drawing found",
    confidence: (percent) => `${percent} confidence`,
    unlike: "Unlike the training images",
    input: "network input",
    inputAlt: "The image as the network sees it",
    explain: "Show the evidence",
    explained: "orange: for the prediction, blue: against it",
    size: (width, height) => `${width} × ${height} pixels`,
    probabilities: "Probability of each class",
    save: "Save it",
    saveLead: "Choose the correct label to save the image as the network sees it.",
    saveGroup: "Label of the drawing",
    saveAs: (label) => `Save as ${label}`,
    saved: "Saved drawings",
    download: (count) => `Download ${count} drawing${count === 1 ? "" : "s"}`,
    removeLast: "Remove last",
    removeAll: "Remove all",
    removeQuestion: "Remove all saved drawings?",
    zip: "A ZIP file with one folder per label. vggnet evaluate and vggnet train read it.",
    keyboard: "Keyboard shortcuts",
    keyLabel: "save with this label; if the labels are not digits, 0 is the first one",
    keyUndo: "undo a stroke",
    keyClear: "clear",
    keyDownload: "download the saved drawings",
    keyMove: "move the pen, in the drawing area",
    keySpace: "put the pen down or lift it, in the drawing area",
    keySwitch: "Use single-key shortcuts",
    privacy: "Your drawings are sent to this server only.",
    api: "API",
    metrics: "Metrics",
    busy: "The server does not answer. Trying again …",
    spoken: (label, percent) => `Prediction ${label}, ${percent} confidence.`,
    spokenNothing: "No drawing found.",
    spokenSaved: (label, count) => `Saved as ${label}. ${count} saved in total.`,
    spokenCount: (count) => `${count} saved in total.`,
    changed: (label) => `Not saved as ${label}: the drawing has changed.`,
  },
  zh: {
    title: "写一个数字",
    lead: "边写边看神经网络的识别结果。",
    model: "模型",
    drawing: "手写",
    pad: "用鼠标、手指或触控笔在此书写。键盘操作：方向键移动画笔，空格键落笔或抬笔。",
    area: "书写区",
    hint: "在此书写",
    undo: "撤销",
    clear: "清除",
    prediction: "识别结果",
    blank: "还没有书写",
    nothing: "没有找到笔迹",
    confidence: (percent) => `置信度 ${percent}`,
    unlike: "与训练图像不相似",
    input: "网络输入",
    inputAlt: "网络看到的图像",
    explain: "显示依据",
    explained: "橙色支持预测，蓝色反对",
    size: (width, height) => `${width} × ${height} 像素`,
    probabilities: "各类别的概率",
    save: "保存",
    saveLead: "选择正确的标签，按网络看到的样子保存图像。",
    saveGroup: "图像的标签",
    saveAs: (label) => `保存为 ${label}`,
    saved: "已保存的图像",
    download: (count) => `下载 ${count} 张图像`,
    removeLast: "删除最后一张",
    removeAll: "全部删除",
    removeQuestion: "删除所有已保存的图像？",
    zip: "ZIP 文件，每个标签一个文件夹。vggnet evaluate 和 vggnet train 可以直接读取。",
    keyboard: "键盘快捷键",
    keyLabel: "以该标签保存；标签不是数字时，0 表示第一个标签",
    keyUndo: "撤销一笔",
    keyClear: "清除",
    keyDownload: "下载已保存的图像",
    keyMove: "在书写区移动画笔",
    keySpace: "在书写区落笔或抬笔",
    keySwitch: "启用单键快捷键",
    privacy: "图像只发送到本服务器。",
    api: "API",
    metrics: "运行指标",
    busy: "服务器没有响应，正在重试……",
    spoken: (label, percent) => `识别结果 ${label}，置信度 ${percent}。`,
    spokenNothing: "没有找到笔迹。",
    spokenSaved: (label, count) => `已保存为 ${label}，共 ${count} 张。`,
    spokenCount: (count) => `共保存 ${count} 张。`,
    changed: (label) => `没有保存为 ${label}：图像已经改变。`,
  },
};

const codes = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase());
const language = codes.find((code) => code in TEXTS) ?? "en";

export const text = TEXTS[language];

// Put the texts into the elements that name one: data-text is their content, data-label their
// label and data-alt the description of an image.
export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = `${text.title} · vggnet`;
  for (const element of document.querySelectorAll("[data-text]"))
    element.textContent = text[element.dataset.text];
  for (const element of document.querySelectorAll("[data-label]"))
    element.setAttribute("aria-label", text[element.dataset.label]);
  for (const element of document.querySelectorAll("[data-alt]"))
    element.alt = text[element.dataset.alt];
}
